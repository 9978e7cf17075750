"""Device images built with buildah and run in a sandbox (``make test-docker``): no network, read-only root, no rights.

arm64's run on an emulated Cortex-A72 and A76. What is compared with is the same file outside of any container.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _arm64
from benchmarks.demo.images import SHAPES, draw_image
from qhyvit.bundle import write_bundle
from qhyvit.image import CONFIG, write_image, write_tarball
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops.shared.spec import Kernel
from qhyvit.plan import QuantPlan
from qhyvit.verify.decide import simulated_codes
from qhyvit.wheelhouse import Platform
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.preprocess import quantize as codes_of

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
IMAGES, SIZE, MB = 4, 128, 1_000_000
HOW = Preprocess("squash", SIZE, "bicubic")
RUNS = [("amd64", None), ("arm64", "cortex-a72"), ("arm64", "cortex-a76")]


@pytest.fixture(scope="session")
def place():
    """Where the base image and buildah's storage lie: made once, outside of the repository's files."""
    folder = Path(os.environ.get("QHYVIT_DOCKER", ROOT / "build" / "docker")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def buildah(place):
    if platform.machine() != "x86_64":
        pytest.skip("the base image and the emulator are made for x86-64 hosts")
    storage = ["--root", str(place / "root"), "--runroot", str(place / "run"), "--storage-driver", "overlay"]

    def call(*arguments):
        command = ["buildah", *storage, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    environment = {**os.environ, "BUILDAH_OPTIONS": " ".join(storage)}
    subprocess.run(["bash", "tools/docker_base.sh", str(place)], cwd=ROOT, env=environment, check=True)
    call.environment = environment
    return call


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, small_v1, inputs):
    folder = tmp_path_factory.mktemp("docker")
    chosen = method("minmax")
    found = chosen.search(Problem(small_v1.graph, inputs), dict(chosen.defaults))
    graph = found.graph
    plan = QuantPlan(found.tensors, "minmax", wide=tuple(graph.tensors[t].name for t in graph.wide))

    def on_arm64(pixels):
        entry = found.tensors[graph.tensors[graph.inputs[0]].name]
        codes = codes_of(pixels, HOW, entry.scale[0], entry.zero_point[0], "int8")[None]
        return simulated_codes(lower(found.shipped, plan).graph, [codes], Kernel.ARM64)[0]

    draw_image(3, np.random.default_rng(3), SIZE).save(folder / "test.png")
    facts = {"model": "mobilevit_xxs", "profile": "integer", "versions": {}, "created_by": {}}
    data = quantized_file(found.shipped, plan)
    write_bundle(folder / "b", data, HOW, folder / "test.png", list(SHAPES), facts, on_arm64=on_arm64)
    codes = np.random.default_rng(1).integers(-128, 127, (IMAGES, SIZE, SIZE, 3), dtype=np.int8, endpoint=True)
    np.save(folder / "images.npy", codes)
    return folder / "b"


@pytest.fixture(scope="session")
def images(buildah):
    """By architecture, the name of the image that docker/device.Dockerfile gives."""
    command = ["bash", "tools/docker_build.sh", "device-amd64", "device-arm64"]
    done = subprocess.run(command, cwd=ROOT, env=buildah.environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(("amd64", "arm64"), done.stdout.split(), strict=True))


def sandboxed(tree, arm, processor, command, *binds):
    """Run ``command`` of an image's tree as its configuration says: the user, the variables, nothing writable."""
    variables = [part for pair in CONFIG["Env"] for part in ("--setenv", *pair.split("=", 1))]
    user, group = CONFIG["User"].split(":")
    emulator = [] if processor is None else ["--ro-bind", arm / "qemu", "/tmp/qemu"]
    through = [] if processor is None else ["/tmp/qemu", "-cpu", processor]
    sandbox = ["bwrap", "--unshare-all", "--clearenv", "--cap-drop", "ALL", "--uid", user, "--gid", group,
               "--ro-bind", tree, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
               "--ro-bind", "/sys", "/sys"]  # fmt: skip
    full = [*sandbox, *emulator, *binds, *variables, *through, *command]
    return subprocess.run([str(c) for c in full], capture_output=True, text=True, check=False)


@pytest.fixture
def mounted(buildah):
    """Mount an image's tree, read-only by how it is used."""
    made = []

    def mount(name):
        made.append(buildah("from", "--pull-never", name))
        return Path(buildah("mount", made[-1]))

    yield mount
    for container in made:
        buildah("rm", container)


def size_mb(tree):
    return sum(p.lstat().st_size for p in tree.rglob("*") if not p.is_dir()) / MB


@pytest.mark.parametrize(("architecture", "processor"), RUNS)
def test_codes_in_the_image_are_those_outside(images, mounted, arm, bundle, tmp_path, architecture, processor):
    tree, script, out = mounted(images[architecture]), _arm64.SCRIPT, tmp_path / "out"
    out.mkdir(mode=0o777)
    binds = ["--ro-bind", bundle.parent, "/tmp/in", "--ro-bind", script, "/tmp/run.py", "--bind", out, "/tmp/out"]
    command = ["/usr/bin/python3", "/tmp/run.py", "/tmp/in/b/model.tflite", "/tmp/in/images.npy", "/tmp/out/o.npz"]
    inside = sandboxed(tree, arm, processor, [*command, "xnnpack"], *binds)
    assert inside.returncode == 0, inside.stderr
    said = json.loads(inside.stdout.splitlines()[-1])
    assert said == {"machine": "aarch64" if processor else "x86_64", "partitions": said["partitions"]}
    assert said["partitions"] > 1  # XNNPACK works
    files = [bundle / "model.tflite", bundle.parent / "images.npy", tmp_path / "o.npz", "xnnpack"]
    outside = _arm64.emulate(arm, processor, script, *files) if processor else subprocess.run(
        [sys.executable, str(script), *map(str, files)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert outside.returncode == 0, outside.stderr
    with np.load(out / "o.npz") as a, np.load(tmp_path / "o.npz") as b:
        assert len(a["outputs"]) == IMAGES
        assert np.array_equal(a["outputs"], b["outputs"])
    print(f"{architecture} {processor or ''}: {size_mb(tree):.0f} MB, {said['partitions']} partitions of XNNPACK")


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_images_are_small_and_hold_no_compiler_and_no_shell(images, mounted, architecture):
    tree = mounted(images[architecture])
    assert size_mb(tree) < 250
    names = {p.name for p in tree.rglob("*")}
    assert not names & {"sh", "bash", "dash", "gcc", "cc", "ld", "as", "pip", "apt-get", "torch"}


def test_nothing_can_be_written_and_nothing_reached(images, mounted, arm):
    tree = mounted(images["amd64"])
    write = "import pathlib; pathlib.Path('/app/x').write_text('x')"
    done = sandboxed(tree, arm, None, ["/usr/bin/python3", "-c", write])
    assert "Read-only file system" in done.stderr
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
    assert "Network is unreachable" in sandboxed(tree, arm, None, ["/usr/bin/python3", "-c", connect]).stderr


@pytest.fixture(scope="session")
def archives(bundle, tmp_path_factory):
    """By architecture, the archive of the bundle's image; made twice, the second one is looked at here."""
    folder, found = tmp_path_factory.mktemp("archives"), {}
    for architecture in ("amd64", "arm64"):
        paths = [folder / f"{architecture}-{i}.tar" for i in range(2)]
        made = [write_image(bundle, path, f"linux/{architecture}", print, name="test/x") for path in paths]
        print(f"{architecture}: {made[0]}")
        assert made[0] == made[1]
        assert paths[0].read_bytes() == paths[1].read_bytes()
        found[architecture] = paths[0]
    return found


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])  # what newer and older engines read
@pytest.mark.parametrize(("architecture", "processor"), RUNS)
def test_a_bundles_image_runs_its_self_test(buildah, mounted, arm, archives, architecture, processor, transport):
    tree = mounted(buildah("pull", "--quiet", "--arch", architecture, f"{transport}:{archives[architecture]}"))
    done = sandboxed(tree, arm, processor, [*CONFIG["Entrypoint"], *CONFIG["Cmd"], "--json"])
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["self_test"]["same_decision"]
    assert facts["delegate_partitions"] > 1


def test_the_tarball_installs_on_a_bare_python(buildah, images, mounted, bundle, tmp_path):
    """Debian's base image has a shell and coreutils; Python is the device image's. This machine's is never used."""
    write_tarball(bundle, tmp_path / "board.tar", Platform("3.11", "x86_64"), print)
    subprocess.run(["tar", "xf", "board.tar"], cwd=tmp_path, check=True)
    python, shell = mounted(images["amd64"]), mounted("docker.io/library/debian:bookworm-slim")
    wrapper = tmp_path / "python"
    wrapper.write_text(
        "#!/bin/sh\nexec /tmp/py/usr/lib64/ld-linux-x86-64.so.2 --library-path /tmp/py/usr/lib/x86_64-linux-gnu "
        '/tmp/py/usr/bin/python3.11 "$@"\n'
    )
    wrapper.chmod(0o755)
    command = ["bwrap", "--unshare-all", "--clearenv", "--ro-bind", shell, "/", "--proc", "/proc", "--dev", "/dev",
               "--tmpfs", "/tmp", "--ro-bind", "/sys", "/sys", "--ro-bind", python, "/tmp/py", "--bind", tmp_path,
               "/tmp/w", "--setenv", "PATH", "/usr/bin", "--setenv", "PYTHONHOME", "/tmp/py/usr",
               "--setenv", "PYTHON", "/tmp/w/python", "/bin/sh", "/tmp/w/qhyvit-board/install.sh"]  # fmt: skip
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "self test            equal_codes 1.0" in done.stdout
