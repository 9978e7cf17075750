"""``classify`` without rights, memory, /proc or a file system to write on: it works, or says in one line why not."""

import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qhyvit_device

NOBODY = 65534
LIMIT = 512 << 20
HOME = Path(sys.base_prefix)  # of Python, which may lie where others cannot look
READ_ONLY = "mount -o remount,bind,ro / && for m in /tmp /dev/shm /var/tmp; do mount -t tmpfs -o ro none $m; done"
NO_PROC = "mount -t tmpfs none /proc"
RIGHTS = "--clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"
UNPRIVILEGED = f"setpriv --reuid={NOBODY} --regid={NOBODY} {RIGHTS} "
SURROUNDINGS = {  # what is done in a mount namespace of its own, and what the command runs under
    "nobody": ("true", UNPRIVILEGED), "read-only": (READ_ONLY, ""), "no /proc": (NO_PROC, ""),
    "512 MiB of data": ("true", f"prlimit --data={LIMIT} "), "512 MiB of addresses": ("true", f"prlimit --as={LIMIT} "),
    "all": (f"{READ_ONLY} && {NO_PROC}", f"prlimit --data={LIMIT} {UNPRIVILEGED}"),
}  # fmt: skip
RUNTIME = ("INFO: ", "Error in cpuinfo: ")  # what the interpreter says of itself
WORKS = set(SURROUNDINGS) - {"512 MiB of addresses"}  # how many addresses libraries reserve depends on the machine


def possible():
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    if not all(map(shutil.which, ("unshare", "setpriv", "prlimit", "mount"))):
        return False
    tried = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not possible(), reason="needs root, and unshare, setpriv, prlimit and mount that work")


@pytest.fixture(scope="module")
def place(bundle):
    """A folder that every user can read, at a path that nothing is mounted over: bundle, package, pictures."""
    folder = Path("/opt", f"qhyvit-confined-{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        shutil.copytree(bundle, folder / "b")
        shutil.copytree(Path(qhyvit_device.__file__).parent, folder / "site" / "qhyvit_device")
        for name in ("numpy", "PIL", "ai_edge_litert"):
            package = Path(__import__(name).__file__).parent
            libraries = package.with_name(f"{'pillow' if name == 'PIL' else name}.libs")
            for source, called in ((package, name), (libraries, libraries.name)):
                if source.is_dir() and source.is_relative_to("/tmp"):  # over which something is mounted
                    shutil.copytree(source, folder / "site" / called)
                elif source.is_dir():
                    (folder / "site" / called).symlink_to(source)
        yield folder
    finally:
        shutil.rmtree(folder)


def visible():
    """Shell commands that make Python and its packages readable for others, who may not look into a home."""
    roots = {Path("/", path.parts[1]) for path in (HOME, Path(os.__file__), Path(__import__("numpy").__file__))}
    homes = [path for path in roots if path.stat().st_mode & 0o5 != 0o5]
    lines = []
    for number, home in enumerate(homes):
        kept = f"/mnt/{number}"
        lines.append(f"mkdir {kept} && mount --bind {home} {kept} && mount -t tmpfs -o mode=755 none {home}")
        again = f"mkdir {home}/$e && mount --bind {kept}/$e {home}/$e"
        lines.append(f"for e in $(ls -A {kept}); do if [ -d {kept}/$e ]; then {again}; fi; done")
    return ["mount -t tmpfs none /mnt", *lines]


def confined(place, surroundings, command):
    before, under = SURROUNDINGS[surroundings]
    python = f"{under}{Path(sys.base_prefix, 'bin', 'python3')} -B -m qhyvit_device {command}"
    script = " && ".join(["mount --make-rprivate /", *visible(), f"cd {place}", before, python])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "site")}
    return subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False,
                          env=environment, timeout=300)  # fmt: skip


COMMANDS = ("classify b b/test.png --trust once", "info b", "bench b --runs 1 --seconds 0")


@pytest.mark.parametrize(("surroundings", "command"), [
    *((name, "classify b b/test.png") for name in SURROUNDINGS), *(("all", command) for command in COMMANDS),
])  # fmt: skip
def test_it_works_or_says_in_one_line_why_not(place, surroundings, command):
    done = confined(place, surroundings, command)
    said = [line for line in done.stderr.splitlines() if not line.startswith(RUNTIME)]
    assert "Traceback" not in done.stdout + done.stderr
    if surroundings in WORKS:
        assert done.returncode == 0, done.stderr
        assert said == [] or command.startswith("bench"), done.stderr  # which says what it does
    else:
        assert done.returncode in (0, 2), done.stderr
        assert len(said) == (1 if done.returncode else 0), done.stderr
    if command.startswith("classify") and done.returncode == 0:
        assert done.stdout.startswith("b/test.png\n")


def test_the_confinement_confines(place):
    """Else the tests above prove nothing."""

    def python(surroundings, code):
        under = SURROUNDINGS[surroundings]
        script = " && ".join(["mount --make-rprivate /", *visible(), f"cd {place}", under[0],
                              f"{under[1]}{sys.base_prefix}/bin/python3 -B -c {shlex.quote(code)}"])  # fmt: skip
        return subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)

    assert python("nobody", "import os; print(os.getuid())").stdout == f"{NOBODY}\n"
    assert "Read-only" in python("read-only", "open('x', 'w')").stderr
    assert "Read-only" in python("read-only", "open('/tmp/x', 'w')").stderr
    assert python("no /proc", "import os; print(os.listdir('/proc'))").stdout == "[]\n"
    assert "MemoryError" in python("512 MiB of data", f"bytearray({LIMIT})").stderr
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != LIMIT
