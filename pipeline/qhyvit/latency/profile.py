"""A latency profile: the time of each kernel of a processor by its elements and multiply-accumulates; and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.latency.work import FLOAT, INT8, INT16, TABLE, KernelWork

SCHEMA_VERSION = 1
DEFAULT = Path(__file__).with_name("default.json")
# What int16 islands have in the place of kernels of float ones: their borders, and see tflite/int16_sums.py
INSTEAD = {
    f"DEQUANTIZE {INT8}>{FLOAT}": f"QUANTIZE {INT8}>{INT16}", f"QUANTIZE {FLOAT}>{INT8}": f"QUANTIZE {INT16}>{INT8}",
    f"MEAN {FLOAT}": f"SUM {INT16}", f"MUL/square {FLOAT}": f"BATCH_MATMUL/squares {INT16}",
}  # fmt: skip
COSTS = ("fixed_us", "ns_per_element", "ns_per_mac")


@dataclass(frozen=True)
class KernelTime:
    """The time of one kernel.

    Args:
        fixed_us: microseconds a call; ns_per_element, ns_per_mac: nanoseconds.
        builtin: a kernel of the runtime's own, which parts XNNPACK's graph in two.
        samples: how many ops it was fitted to; 0: taken from another profile.
        error: median relative error on them.
    """

    fixed_us: float = 0.0
    ns_per_element: float = 0.0
    ns_per_mac: float = 0.0
    builtin: bool = False
    samples: int = 0
    error: float = 0.0

    def __post_init__(self) -> None:
        for name in (*COSTS, "samples", "error"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}, must be a number of 0 or more")
        if not isinstance(self.builtin, bool):
            raise ValueError(f"builtin is {self.builtin!r}, must be true or false")

    def ms(self, elements: int, macs: int = 0) -> float:
        """Milliseconds of one call."""
        return self.fixed_us / 1e3 + (self.ns_per_element * elements + self.ns_per_mac * macs) / 1e6

    def scaled(self, times: float) -> KernelTime:
        """``times`` as slow."""
        fixed, element, mac = (float(f"{getattr(self, name) * times:.5g}") for name in COSTS)
        return replace(self, fixed_us=fixed, ns_per_element=element, ns_per_mac=mac)


@dataclass(frozen=True)
class Sizes:
    """From which sizes on one form of an op is faster than another: what no fit of single kernels shows.

    Args:
        lanes: outputs that a matrix kernel makes at a time; of fewer, what is left of each step is wasted.
        channels: input channels that an int8 convolution takes at a time.
        columns: elements of a right operand [.., K, N] from which packing it takes longer than transposing it first.
        few_rows, many_rows: a product of at most so many rows with at least so many packs the few.
        cached: elements of a float tensor that stay in the caches of one core.
        beyond_cache_ns: nanoseconds more for each element of a larger one. How much longer that takes depends on what
            ran before: a SiLU split over 786,432 elements took 0.95 ns each, its kernels alone say 0.45.
        softmax_elements: of an int8 softmax from which the eight ops that it is made of are faster than its kernel.
        softmax_rows: of a softmax over less than ``lanes`` values from which three ops are faster.
        factor_layers: elements of a map from which a depthwise convolution is faster than a product with a factor a
            channel.
    """

    lanes: int = 16
    channels: int = 8
    columns: int = 2048
    few_rows: int = 16
    many_rows: int = 128
    cached: int = 1 << 19
    beyond_cache_ns: float = 0.1
    softmax_elements: int = 1 << 15
    softmax_rows: int = 128
    factor_layers: int = 10**9

    def __post_init__(self) -> None:
        for f in fields(self):
            value, whole = getattr(self, f.name), f.name != "beyond_cache_ns"
            is_number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
            if not is_number or not 0 <= value < math.inf:
                raise ValueError(f"{f.name} is {value!r}, must be a {'whole ' if whole else ''}number of 0 or more")


SIZES = Sizes()


@dataclass(frozen=True)
class LatencyProfile:
    """Kernels of one processor by name (see :func:`qhyvit.latency.work.kernel_name`).

    Args:
        name: in words, what it was measured on.
        threads: of the interpreter.
        partition_us: microseconds that one more part of XNNPACK's graph costs.
        sizes: where one form of an op becomes faster than another.
    """

    name: str
    threads: int = 1
    partition_us: float = 0.0
    kernels: Mapping[str, KernelTime] = field(default_factory=dict)
    sizes: Sizes = SIZES

    def ms(self, work: KernelWork) -> float | None:
        """Milliseconds of an op, a parted graph and large float tensors included; None for one never measured."""
        kernel = self.kernels.get(work.kernel)
        if kernel is None:
            return None
        large = work.elements > self.sizes.cached and FLOAT in work.kernel
        extra = self.partition_us / 1e3 * kernel.builtin + self.sizes.beyond_cache_ns * work.elements / 1e6 * large
        return kernel.ms(work.elements, work.macs) + extra

    def to_json(self) -> str:
        """One line a kernel."""
        head = {"schema_version": SCHEMA_VERSION, "name": self.name, "threads": self.threads,
                "partition_us": self.partition_us, "sizes": asdict(self.sizes)}  # fmt: skip
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
        rows = [f"{json.dumps(name)}: {json.dumps(asdict(kernel))}" for name, kernel in sorted(self.kernels.items())]
        return "{\n" + ",\n".join([*lines, '"kernels": {\n' + ",\n".join(rows) + "\n}"]) + "\n}\n"

    def scaled(self, times: float) -> LatencyProfile:
        """Every kernel ``times`` as slow."""
        kernels = {name: kernel.scaled(times) for name, kernel in self.kernels.items()}
        return replace(self, partition_us=round(self.partition_us * times, 3), kernels=kernels)

    def outside_int8(self, *, int16: bool) -> LatencyProfile:
        """The profile for what computes outside int8: as it is for float, or ``int16`` kernels under float's names.

        Float kernels without an int16 counterpart are missing then, and tables of codes, which are made of float ops.
        """
        if not int16:
            return self
        kept = {name: k for name, k in self.kernels.items() if FLOAT not in name and name != TABLE}
        for name, kernel in self.kernels.items():
            if name.endswith(f" {INT16}"):
                kept[f"{name.removesuffix(INT16)}{FLOAT}"] = kernel
        kept |= {name: self.kernels[other] for name, other in INSTEAD.items() if other in self.kernels}
        return replace(self, kernels=kept)

    @property
    def digest(self) -> str:
        """Hash of all that it says."""
        return files.sha256(self.to_json().encode())


def from_json(raw: Any, what: str) -> LatencyProfile:
    """Read back what ``to_json`` wrote, parsed; ``what`` names it in errors.

    Raises:
        InputError: another schema version, unknown or missing keys, values that cannot be.
    """
    try:
        version = raw["schema_version"]
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {version!r}, must be {SCHEMA_VERSION}")
        unknown = set(raw) - {f.name for f in fields(LatencyProfile)} - {"schema_version"}
        if unknown:
            raise ValueError(f"unknown key {min(unknown)!r}")
        kernels = {str(name): KernelTime(**values) for name, values in raw["kernels"].items()}
        rest = KernelTime(fixed_us=raw["partition_us"])
        threads = raw["threads"]
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads is {threads!r}, must be 1 or more")
        return LatencyProfile(str(raw["name"]), threads, rest.fixed_us, kernels, Sizes(**raw.get("sizes", {})))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{what} is no latency profile ({reason}); `qhyvit latency-profile BENCH.json --out FILE` makes one"
        ) from error


@cache
def default_profile() -> LatencyProfile:
    """The profile that is used where none is given."""
    return from_json(json.loads(DEFAULT.read_text()), DEFAULT.name)


def packaged() -> dict[str, Path]:
    """Other profiles that come with the package, by the name of their processor."""
    return {path.stem: path for path in sorted(DEFAULT.parent.glob("*.json")) if path != DEFAULT}
