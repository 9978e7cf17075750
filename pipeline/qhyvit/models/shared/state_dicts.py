"""Reads the state dicts that a weights file holds, without running code from it."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import re
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qhyvit.errors import InputError
from qhyvit.models.shared.shards import shards_of

State = dict[str, torch.Tensor]
# where training scripts keep weights; averaged ones first, as timm and most evaluations take them
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
TRAINED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
SETS = (*AVERAGED, *TRAINED, "teacher")
DEEP = 3  # sets inside sets
REMEDY = "save model.state_dict()"


def _harmless() -> list[Any]:
    """Types that lie beside weights and run nothing: options, paths, dates, numbers of numpy."""
    try:
        from numpy._core.multiarray import _reconstruct, scalar
    except ImportError:
        from numpy.core.multiarray import _reconstruct, scalar  # type: ignore[no-redef]
    made = [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in (_reconstruct, scalar) for core in ("core", "_core")]
    dtypes = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdFDgSU"}
    paths = [(pathlib.PurePosixPath, f"{home}.{name}") for home in ("pathlib", "pathlib._local")
             for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path")]  # fmt: skip
    return [
        argparse.Namespace, types.SimpleNamespace, collections.defaultdict, datetime.datetime, datetime.date,
        datetime.timedelta, datetime.timezone, torch.torch_version.TorchVersion, np.ndarray, np.dtype, *dtypes, *made,
        *paths,
    ]  # fmt: skip


def read_sets(path: Path) -> dict[str, State]:
    """State dicts of a ``.safetensors`` file or a torch file by where they lie in it ("": the file itself).

    An index of several such files (``.index.json``) has one state dict, made of all of them.

    Raises:
        InputError: missing, truncated, or no state dict in it; with the reason.
    """
    if not path.is_file():
        raise InputError(f"weights file {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    found: dict[str, State] = {}
    named = shards_of(path)
    _collect(_of_shards(path, named) if named else _content(path), "", found)
    if not found:
        raise InputError(f"weights file {path} holds no state dict; {REMEDY}")
    return dict(sorted(found.items(), key=lambda item: _rank(item[0].split("."))))


def _rank(parts: list[str]) -> tuple[bool, bool, int]:
    """The set that is taken first: an averaged one; a teacher's, which may be another network's, last."""
    order = {name: place for place, name in enumerate(("", *SETS))}
    return "teacher" in parts, not any(p in AVERAGED for p in parts), max(order[p] for p in parts)


def _of_shards(path: Path, named: dict[str, Path]) -> State:
    """All tensors that an index names; each file is read once."""
    read = {file: _content(file) for file in sorted(set(named.values()))}
    for tensor, file in named.items():
        if not isinstance(read[file], dict) or tensor not in read[file]:
            raise InputError(f"weights file {file} has no {tensor}, which {path.name} says it holds")
    return {tensor: read[file][tensor] for tensor, file in named.items()}


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
        if start.startswith(b"version https://git-lfs"):
            raise InputError(f"weights file {path} is a pointer of Git LFS, not the weights; run: git lfs pull")
        if start[8:9] == b"{" or path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(str(path))
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises what would run code from the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # each format raises its own kinds on damaged files
        raise InputError(f"weights file {path} {_reason(str(error))}") from error


def _reason(text: str) -> str:
    """Why a file cannot be read, out of torch's text, which goes on to advise what would run code from the file."""
    if "TorchScript" in text:
        return f"is a TorchScript archive, not a state dict; {REMEDY}"
    named = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"[Uu]nsupported (?:class|type) ([\w.]+)", text)
    if named is not None:
        kind = named[1].rstrip(".")
        what = "holds a whole module" if kind.startswith("torch.nn.") else "holds a whole module or other objects"
        return f"{what} ({kind}), not a state dict alone; {REMEDY}"
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    reason = lines[0].partition(". In PyTorch")[0][:200] if lines else "nothing is in it"
    return f"cannot be read, it is truncated or no weights file: {reason}"


def _collect(content: Any, place: str, found: dict[str, State], depth: int = 0) -> None:
    """Add every state dict below ``content`` to ``found``."""
    if not isinstance(content, dict) or depth > DEEP:
        return
    arrays = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) and v.dtype.kind in "fiub" else v
              for k, v in content.items()}  # fmt: skip
    state = {k: v for k, v in arrays.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if state and not any(v.is_quantized or v.is_sparse or v.is_meta for v in state.values()):
        found[place] = {k: v.detach() for k, v in state.items()}
    for name in SETS:
        if name in content:
            _collect(content[name], f"{place}.{name}".strip("."), found, depth + 1)
