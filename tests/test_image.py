"""Images and tarballs of bundles: the same bytes each time, what is inside, what is refused. No network is used."""

import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from qhyvit import image, wheelhouse
from qhyvit.errors import InputError, OutputError, UsageError
from qhyvit.image import TREE, image_name, layer, oci_archive, write_image, write_tarball
from qhyvit.wheelhouse import Platform
from qhyvit_device import manifest as manifests
from qhyvit_device.errors import DeviceError
from qhyvit_device.manifest import Input, Manifest, Output, SelfTest
from qhyvit_device.preprocess import Preprocess

DOCKERFILE = (Path(__file__).parents[1] / "docker" / "device.Dockerfile").read_text()
CONTENT = {"model.tflite": b"model", "labels.txt": b"a\nb\n", "test.png": b"png"}


@pytest.fixture
def bundle(tmp_path):
    """A bundle folder with right checksums, and a file beside that is not the bundle's."""
    folder = tmp_path / "b"
    folder.mkdir()
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    manifest = Manifest(
        "timm/Net_v2.x", "integer", Input(8, 8, "int8", 0.01, -128), (Output("logits", (1, 2), "int8", 0.1, 0),),
        Preprocess("crop", 9, "bilinear"), SelfTest("test.png", (1, 2), "x86_64", "litert 1"),
        {name: manifests.sha256(folder / name) for name in CONTENT},
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifests.dumps(manifest))
    (folder / "holiday.jpg").write_bytes(b"private")
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Stand-ins for what is fetched; models are not opened, theirs is no model."""
    monkeypatch.setattr(
        image.Model, "load", lambda folder: SimpleNamespace(manifest=manifests.load(folder / "manifest.json"))
    )

    def tree(kind, _, folder):
        (folder / "usr").mkdir(parents=True)
        (folder / "usr" / kind).write_text(kind)
        (folder / "tmp").mkdir(mode=0o755)
        (folder / "tmp").chmod(0o1777)
        (folder / "bin").symlink_to("usr")

    monkeypatch.setattr(image, "_tree", tree)
    monkeypatch.setattr(image, "fetch", lambda *_: None)


def read(path):
    """Names and contents of an image's archive, and its layers opened."""
    with tarfile.open(path) as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
    manifest = json.loads(content[blob(json.loads(content["index.json"])["manifests"][0])])
    return content, manifest, [opened(content[blob(part)]) for part in manifest["layers"]]


def opened(packed):
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed)))


def blob(descriptor):
    return "blobs/" + descriptor["digest"].replace(":", "/")


def make(bundle, out, **options):
    return write_image(bundle, out, "linux/arm64", lambda line: None, **options)


@pytest.mark.usefixtures("offline")
def test_the_same_bundle_gives_the_same_image_whatever_dates_order_and_umask(bundle, tmp_path):
    first = make(bundle, tmp_path / "1.tar")
    for name in sorted(CONTENT, reverse=True):  # written again in another order, at another time, for another reader
        path = bundle / name
        path.unlink()
        path.write_bytes(CONTENT[name])
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert make(bundle, tmp_path / "2.tar") == first
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text().replace("integer", "cpu"))
    assert make(bundle, tmp_path / "3.tar").digest != first.digest


@pytest.mark.usefixtures("offline")
def test_every_digest_and_size_is_that_of_its_content(bundle, tmp_path):
    made = make(bundle, tmp_path / "x.tar")
    content, manifest, _ = read(tmp_path / "x.tar")
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    (top,) = json.loads(content["index.json"])["manifests"]
    assert top["digest"] == made.digest
    for part in (top, manifest["config"], *manifest["layers"]):
        assert len(content[blob(part)]) == part["size"]
    config = json.loads(content[blob(manifest["config"])])
    plain = [gzip.decompress(content[blob(part)]) for part in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in plain]
    assert made.unpacked_bytes == sum(map(len, plain))
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    (old,) = json.loads(content["manifest.json"])  # what engines before OCI archives read
    assert old["RepoTags"] == ["qhyvit/timm-net-v2-x:latest"]
    assert [old["Config"], *old["Layers"]] == [blob(manifest["config"]), *map(blob, manifest["layers"])]


@pytest.mark.usefixtures("offline")
def test_layers_hold_root_wheels_device_stage_and_the_bundles_own_files(bundle, tmp_path):
    make(bundle, tmp_path / "x.tar")
    _, _, (root, site, stage, last) = read(tmp_path / "x.tar")
    assert root.getmember("bin").linkname == "usr"
    assert root.getmember("tmp").mode == 0o1777
    assert "app/site/usr/site" in site.getnames()
    assert {"app", "app/device/qhyvit_device/__main__.py"} <= set(stage.getnames())
    assert not any("__pycache__" in name for name in stage.getnames())
    assert set(last.getnames()) == {"bundle", "bundle/manifest.json", *(f"bundle/{name}" for name in CONTENT)}
    assert last.extractfile("bundle/model.tflite").read() == CONTENT["model.tflite"]
    for member in (m for part in (root, site, stage, last) for m in part.getmembers()):
        assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
        assert member.mode & 0o044 == 0o044, f"{member.name} cannot be read by the image's user"


def test_names_are_sorted_and_long_ones_kept(tmp_path):
    names = ["z", "a" * 140, "b/" + "c" * 120]
    path = tmp_path / "file"
    path.write_text("x")
    packed = layer("test", [(name, path) for name in names])
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed.blob))) as archive:
        assert archive.getnames() == sorted(names)


def test_the_image_runs_what_the_dockerfile_runs():
    config = image.CONFIG
    lines = DOCKERFILE.splitlines()
    assert f"ENTRYPOINT {json.dumps(config['Entrypoint'])}" in lines
    assert f"USER {config['User']}" in lines
    assert f"WORKDIR {config['WorkingDir']}" in lines
    (env,) = (line for line in lines if line.startswith("ENV "))
    assert shlex.split(env)[1:] == config["Env"]


def test_the_dockerfile_fetches_for_the_same_platforms_and_python():
    options = Platform(image.PYTHON, "aarch64").pip_options
    said = DOCKERFILE.replace("${machine}", "aarch64").replace('"', "").replace("\\\n", " ").split()
    pairs = set(itertools.pairwise(said))
    assert all(pair in pairs for pair in zip(options[::2], options[1::2], strict=True))


def test_pins_are_exact():
    pins = [line for line in wheelhouse.PINS.read_text().splitlines() if not line.startswith("#")]
    assert len(pins) == 3
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)


@pytest.mark.parametrize(
    ("model", "name"),
    [("mobilevitv2_075", "qhyvit/mobilevitv2-075:latest"), ("net.py:Make", "qhyvit/net-py-make:latest"),
     ("é", "qhyvit/model:latest")],
)  # fmt: skip
def test_names_that_every_engine_takes(model, name):
    assert image_name(model) == name
    assert image.NAME.fullmatch(name)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["Shop/x:1", "a b", "-x", "x:", "x::y", "x/:1"])
def test_names_that_none_takes_are_refused(bundle, tmp_path, name):
    with pytest.raises(UsageError, match="--name"):
        make(bundle, tmp_path / "x.tar", name=name)


@pytest.mark.usefixtures("offline")
def test_a_name_without_a_tag_is_the_latest(bundle, tmp_path):
    assert make(bundle, tmp_path / "x.tar", name="shop/doorbell").name == "shop/doorbell:latest"


@pytest.mark.usefixtures("offline")
def test_nothing_is_replaced_unasked(bundle, tmp_path):
    out = tmp_path / "x.tar"
    out.write_text("precious")
    with pytest.raises(OutputError, match="--force"):
        make(bundle, out)
    assert out.read_text() == "precious"
    with pytest.raises(OutputError, match="no archive"):
        make(bundle, out, force=True)
    assert out.read_text() == "precious"
    out.unlink()
    first = make(bundle, out)
    assert make(bundle, out, force=True) == first
    with pytest.raises(OutputError, match="a folder or a device: it is not replaced"):
        make(bundle, tmp_path, force=True)


def test_platforms_and_bundles_that_cannot_be_served_are_refused(bundle, tmp_path):
    with pytest.raises(UsageError, match="32-bit"):
        write_image(bundle, tmp_path / "x.tar", "linux/arm/v7", print)
    (bundle / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(DeviceError, match="checksum differs"):
        make(bundle, tmp_path / "x.tar")
    with pytest.raises(DeviceError, match="bundle folder"):
        make(tmp_path, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


def test_what_the_script_says_is_the_error(tmp_path):
    with pytest.raises(InputError, match=r"^device_tree\.sh: armhf: known are amd64 and arm64$"):
        image._tree("root", "armhf", tmp_path)


def test_missing_programs_are_named(tmp_path):
    for name in ("mktemp", "rm"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    command = ["/bin/bash", str(TREE), "root", "arm64", str(tmp_path / "out")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "missing, please install: apt-get" in done.stderr


@pytest.mark.usefixtures("offline")
def test_a_tarball_holds_wheels_script_and_bundle_and_is_the_same_each_time(bundle, tmp_path, monkeypatch):
    def wheels(folder, target, log):
        folder.mkdir()
        (folder / "qhyvit-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
        (folder / "install.sh").write_text(f"for {target.python}")

    monkeypatch.setattr(image, "make", wheels)
    target = Platform("3.13", "aarch64")
    digests = {write_tarball(bundle, tmp_path / f"{i}.tar", target, print) for i in range(2)}
    assert digests == {hashlib.sha256((tmp_path / "0.tar").read_bytes()).hexdigest()}
    with tarfile.open(tmp_path / "0.tar") as archive:
        assert archive.extractfile("qhyvit-board/install.sh").read() == b"for 3.13"
        assert "qhyvit-board/bundle/model.tflite" in archive.getnames()
        assert not any("holiday" in name for name in archive.getnames())


def test_an_archive_of_no_layers_is_one_all_the_same():
    data, digest = oci_archive([], "linux/amd64", "a:1", {})
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert f"blobs/sha256/{digest[7:]}" in archive.getnames()
