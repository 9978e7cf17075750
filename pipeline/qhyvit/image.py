"""A bundle with its device stage as a container image, or as a tarball for boards without a container engine.

Neither needs a container engine here, and nothing of the board's architecture is run. Dates, owners, modes and the
order of files are fixed: the same bundle gives the same bytes, as long as Debian's packages are the same.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qhyvit_device
from qhyvit import files
from qhyvit.errors import InputError, OutputError, UsageError
from qhyvit.progress import Log
from qhyvit.wheelhouse import Platform, fetch, make
from qhyvit_device import signature
from qhyvit_device.manifest import FILE_NAME, Manifest
from qhyvit_device.runner import Model

TREE = Path(__file__).with_name("device_tree.sh")
PYTHON = "3.11"  # of Debian 12, which device_tree.sh takes
PLATFORMS = {"linux/arm64": "aarch64", "linux/amd64": "x86_64"}
# the same as in docker/device.Dockerfile, but that the bundle's self test is what runs by default
CONFIG: Mapping[str, Any] = {
    "User": "1000:1000",
    "Env": ["PYTHONPATH=/app/device:/app/site", "PYTHONDONTWRITEBYTECODE=1"],
    "Entrypoint": ["/usr/bin/python3", "-P", "-m", "qhyvit_device"],
    "Cmd": ["info", "/bundle"],
    "WorkingDir": "/tmp",
}
EPOCH = "1970-01-01T00:00:00Z"
BOARD_FOLDER = "qhyvit-board"  # what the tarball unpacks to
OCI = "application/vnd.oci.image"
PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{PART}(?:/{PART})*:\w[\w.-]{{0,127}}", re.ASCII)
Entry = tuple[str, Path]  # name in the archive, without a leading slash; file, folder or link on disk


def _info(name: str, path: Path) -> tarfile.TarInfo:
    """A tar header that depends on the file's kind, content and name alone."""
    mode = path.lstat().st_mode
    info = tarfile.TarInfo(name)
    if stat.S_ISLNK(mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif stat.S_ISDIR(mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o1777 if mode & stat.S_ISVTX else 0o755
    else:
        info.size, info.mode = path.lstat().st_size, 0o755 if mode & stat.S_IXUSR else 0o644
    return info


def pack(stream: Any, entries: Iterable[Entry]) -> None:
    """Write a tar archive of ``entries``, sorted by name, each owned by root and dated 1970."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(entries):
            info = _info(name, path)
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)


def below(folder: Path, prefix: str = "") -> Iterator[Entry]:
    """All that is in ``folder``, under ``prefix`` ("app/site/"; its folders are entries too). Caches are left out."""
    parents = prefix.rstrip("/").split("/") if prefix else []
    for depth in range(len(parents)):
        yield "/".join(parents[: depth + 1]), folder
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if "__pycache__" not in name.parts:
            yield prefix + name.as_posix(), path


def bundle_files(bundle: Path, manifest: Manifest, prefix: str) -> list[Entry]:
    """The bundle's own files, its signature, and no others that may lie beside them."""
    more = [signature.FILE_NAME] if (bundle / signature.FILE_NAME).is_file() else []
    names = [FILE_NAME, *manifest.checksums, *more]
    return [(prefix, bundle), *((f"{prefix}/{name}", bundle / name) for name in names)]


class _Hashing:
    """Passes bytes on and hashes them."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.hash, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        self._stream.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size


@dataclass(frozen=True)
class ImageLayer:
    """One layer: what it holds in words, its gzipped tar, digest and size of the tar."""

    what: str
    blob: bytes
    diff_id: str
    size_bytes: int


def layer(what: str, entries: Iterable[Entry]) -> ImageLayer:
    """Pack a layer."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as compressed:
        plain = _Hashing(compressed)
        pack(plain, entries)
    return ImageLayer(what, packed.getvalue(), f"sha256:{plain.hash.hexdigest()}", plain.size)


@dataclass(frozen=True)
class Image:
    """What was made: name, digest of the image manifest, size of the archive and of the layers unpacked."""

    name: str
    digest: str
    archive_bytes: int
    unpacked_bytes: int


def _blob(blobs: dict[str, bytes], data: bytes, kind: str) -> dict[str, Any]:
    """Add a blob; its descriptor."""
    digest = files.sha256(data)
    blobs[digest] = data
    return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def oci_archive(layers: list[ImageLayer], platform: str, name: str, labels: Mapping[str, str]) -> tuple[bytes, str]:
    """An OCI image layout in a tar, with the index of ``docker save`` as well, so that old engines load it too.

    Returns:
        The archive, and the digest of the image manifest.
    """
    system, architecture = platform.split("/")
    config = {
        "architecture": architecture, "os": system, "created": EPOCH, "config": {**CONFIG, "Labels": dict(labels)},
        "rootfs": {"type": "layers", "diff_ids": [part.diff_id for part in layers]},
        "history": [{"created": EPOCH, "created_by": f"qhyvit bundle-image: {part.what}"} for part in layers],
    }  # fmt: skip
    blobs: dict[str, bytes] = {}
    parts = [_blob(blobs, part.blob, "layer.v1.tar+gzip") for part in layers]
    head = _blob(blobs, _json(config), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": head, "layers": parts}
    top = _blob(blobs, _json(manifest), "manifest.v1+json")
    entry = {
        **top, "platform": {"architecture": architecture, "os": system},
        "annotations": {"io.containerd.image.name": f"docker.io/{name}", "org.opencontainers.image.ref.name": name},
    }  # fmt: skip
    old = {
        "Config": f"blobs/sha256/{head['digest'][7:]}", "RepoTags": [name],
        "Layers": [f"blobs/sha256/{part['digest'][7:]}" for part in parts],
    }  # fmt: skip
    content = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [entry]}),
        "manifest.json": _json([old]),
        **{f"blobs/sha256/{digest}": blobs[digest] for digest in sorted(blobs)},
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in content.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue(), str(top["digest"])


def image_name(model: str) -> str:
    """``qhyvit/MODEL:latest`` with what image names may hold."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower().replace("_", "-")).strip("-")
    return f"qhyvit/{plain or 'model'}:latest"


def _tree(*arguments: str | Path) -> None:
    done = subprocess.run(["bash", str(TREE), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("device_tree.sh: ")]
        raise InputError((lines or done.stderr.splitlines() or ["device_tree.sh failed"])[-1])


def _open(bundle: Path, out: Path, *, force: bool) -> Manifest:
    """The bundle's manifest, after all that can be said before the work."""
    files.check_file(out, force=force)
    if out.exists() and not tarfile.is_tarfile(out):
        raise OutputError(f"{out} exists and is no archive: it is not replaced; use another --out")
    return Model.load(bundle).manifest


def device_layers(platform: str, log: Log) -> list[ImageLayer]:
    """Debian's Python, the wheels, and the device stage that runs here: three layers, the seldom changing ones first.

    Raises:
        InputError: packages or wheels cannot be had.
    """
    with tempfile.TemporaryDirectory() as place:
        root, wheels, site = (Path(place) / name for name in ("root", "wheels", "site"))
        log(f"fetching Debian's Python {PYTHON} for {platform}")
        _tree("root", platform.partition("/")[2], root)
        wheels.mkdir()
        fetch(wheels, Platform(PYTHON, PLATFORMS[platform]), log)
        _tree("site", wheels, site)
        log("packing")
        stage = Path(qhyvit_device.__file__).parent
        return [
            layer("Python and its libraries, from Debian", below(root)),
            layer("wheels", below(site, "app/site/")),
            layer("device stage", below(stage, "app/device/qhyvit_device/")),
        ]


def write_image(
    bundle: Path, out: Path, platform: str, log: Log, *, name: str | None = None, force: bool = False
) -> Image:
    """Write the image of a bundle as an archive that ``docker load`` and ``podman load`` take.

    Args:
        bundle: folder, checked first.
        out: archive to write.
        platform: a key of ``PLATFORMS``.
        log: takes lines for people.
        name: NAME:TAG in the archive; from the model's name without.
        force: replace ``out``.

    Raises:
        UsageError: an unknown platform, or a name that no engine takes.
        InputError: the bundle is damaged, or packages or wheels cannot be had.
        OutputError: ``out`` exists without ``force``, or cannot be written.
    """
    if platform not in PLATFORMS:
        raise UsageError(f"--platform {platform}: known are {', '.join(PLATFORMS)} (32-bit is not supported)")
    manifest = _open(bundle, out, force=force)
    name = image_name(manifest.model) if name is None else name if ":" in name else f"{name}:latest"
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name}: small letters, digits, . _ - and /, like shop/doorbell:1")
    layers = [*device_layers(platform, log), layer("bundle", bundle_files(bundle, manifest, "bundle"))]
    labels = {
        "org.opencontainers.image.title": f"{manifest.model}, {manifest.profile}",
        "org.opencontainers.image.version": qhyvit_device.__version__,
        "org.opencontainers.image.description": "An integer TFLite bundle with the qhyvit device stage",
    }
    archive, digest = oci_archive(layers, platform, name, labels)
    files.write_bytes(out, archive)
    return Image(name, digest, len(archive), sum(part.size_bytes for part in layers))


def write_tarball(bundle: Path, out: Path, target: Platform, log: Log, *, force: bool = False) -> str:
    """Write bundle, wheels and install script as one tar, for a board without a container engine; its sha256.

    Raises:
        InputError, OutputError: see :func:`write_image`.
    """
    manifest = _open(bundle, out, force=force)
    with tempfile.TemporaryDirectory() as place:
        make(Path(place) / "wheels", target, log)
        entries = [*below(Path(place) / "wheels", f"{BOARD_FOLDER}/")]
        entries += bundle_files(bundle, manifest, f"{BOARD_FOLDER}/bundle")
        stream = io.BytesIO()
        pack(stream, entries)
    files.write_bytes(out, stream.getvalue())
    return files.sha256(stream.getvalue())
