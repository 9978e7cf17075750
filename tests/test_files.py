"""Nothing half-written is ever found under a final name."""

import resource
import subprocess
import sys

import pytest

from qhyvit import files
from qhyvit.errors import OutputError


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def stop_in_the_middle():
        with files.new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_in_the_middle()
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("x")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["whole"]


def test_what_exists_is_kept_unless_forced_and_never_if_it_is_no_bundle(tmp_path):
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "cat.jpg").write_text("x")
    for force in (False, True):
        with pytest.raises(OutputError, match="exists"):
            files.check_free(precious, force=force)
    (precious / "manifest.json").write_text("{}")
    files.check_free(precious, force=True)


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a writable folder"):
        files.check_free(tmp_path / "file" / "out", force=False)


def test_a_full_disk_leaves_nothing(tmp_path):
    # a limit on file size stands for a full disk: the system refuses the bytes in the middle of the write
    script = (
        "import resource, signal, sys; from pathlib import Path; from qhyvit import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    files.write_bytes(Path(sys.argv[1]) / 'big', bytes(100000))\n"
        "except files.OutputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000
