"""Watched folders, standard input and cameras, and the example program."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.demo.images import draw_image
from qhyvit_device import sources
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.runner import Model

EXAMPLE = Path(__file__).parents[2] / "device" / "examples" / "doorbell.py"


def picture(path, seed):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)


def later(seconds, *steps):
    def run():
        for step in steps:
            time.sleep(seconds)
            step()

    threading.Thread(target=run, daemon=True).start()


def test_a_folder_gives_what_appears_in_it_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "POLL_SECONDS", 0.05)
    picture(tmp_path / "old.png", 0)
    whole = io.BytesIO()
    Image.new("RGB", (300, 300), (9, 9, 9)).save(whole, "BMP")
    half = len(whole.getvalue()) // 2

    def first():
        (tmp_path / "new.bmp").write_bytes(whole.getvalue()[:half])

    def second():
        with (tmp_path / "new.bmp").open("ab") as stream:
            stream.write(whole.getvalue()[half:])

    def third():
        (tmp_path / "notes.txt").write_text("no picture")
        (tmp_path / "bad.jpg").write_text("no picture either")
        picture(tmp_path / "next.png", 1)

    found = sources.watch_folder(tmp_path)
    later(0.06, first, second, third)
    seen = [next(found) for _ in range(3)]
    by_name = {Path(name).name: image for name, image in seen}
    assert set(by_name) == {"new.bmp", "bad.jpg", "next.png"}
    assert isinstance(by_name["bad.jpg"], InputError)
    # the half that was there for a moment is no frame: the whole picture came, or its error and then the picture
    assert isinstance(by_name["next.png"], Image.Image)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        next(sources.frames(str(tmp_path / "none")))


def test_a_v4l2_frame_comes_in_rgb_and_the_device_is_released(monkeypatch):
    released = []

    class Capture:
        def __init__(self, number):
            self.left = [np.full((4, 6, 3), (0, 10, 200), np.uint8)]

        def read(self):
            return (True, self.left.pop()) if self.left else (False, None)

        def release(self):
            released.append(True)

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Capture))
    found = sources.frames("camera:3")
    name, image = next(found)
    assert name == "camera:3/1"
    assert image.getpixel((0, 0)) == (200, 10, 0)
    with pytest.raises(DeviceError, match="/dev/video3"):
        next(found)
    assert released == [True]


def test_a_pi_camera_is_started_and_stopped(monkeypatch):
    calls = []

    class Picamera2:
        def create_still_configuration(self, main):
            return main

        def configure(self, configuration):
            calls.append(configuration["format"])

        def start(self):
            calls.append("start")

        def stop(self):
            calls.append("stop")

        def capture_array(self):
            return np.full((4, 6, 3), (1, 2, 3), np.uint8)

    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    found = sources.frames("picamera2")
    assert next(found)[1].getpixel((0, 0)) == (1, 2, 3)
    found.close()
    assert calls == ["BGR888", "start", "stop"]


@pytest.mark.parametrize(("source", "package"), [("camera", "cv2"), ("picamera2", "picamera2")])
def test_a_package_that_is_missing_is_named(source, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DeviceError, match="install"):
        next(sources.frames(source))


def device(*args, feed=None):
    command = [sys.executable, "-m", "qhyvit_device", *map(str, args)]
    return subprocess.run(command, input=feed, capture_output=True, check=False, timeout=120)


def watching(command):
    """The process, once it says that it watches."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("watching"):
            return process
    raise AssertionError("it ended before it watched")


def test_standard_input_is_classified_like_the_file(bundle):
    path = bundle / "test.png"
    by_file = json.loads(device("classify", bundle, path, "--json").stdout)["results"][0]
    by_pipe = json.loads(device("classify", bundle, "-", "--json", feed=path.read_bytes()).stdout)["results"][0]
    assert by_pipe["predictions"] == by_file["predictions"]
    assert by_pipe["image"] == "-"
    done = device("classify", bundle, "-", feed=b"no image")
    assert done.returncode == 2
    assert done.stderr.count(b"error:") == 1


def test_watching_prints_a_line_an_image_and_goes_on_after_a_bad_one(bundle, tmp_path):
    def put():
        (tmp_path / "a.jpg").write_text("no picture")
        picture(tmp_path / "b.png", 3)

    options = ["classify", bundle, "--watch", tmp_path, "--frames", "2", "--json"]
    process = watching([sys.executable, "-m", "qhyvit_device", *map(str, options)])
    put()
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0
    (line,) = [json.loads(text) for text in out.splitlines()]
    assert line["image"].endswith("b.png")
    assert len(line["predictions"]) == 5
    assert "a.jpg: not an image" in said


def test_images_and_watching_exclude_each_other(bundle, tmp_path):
    for args in ((), (bundle / "test.png", "--watch", tmp_path)):
        done = device("classify", bundle, *args)
        assert done.returncode == 2
        assert b"or --watch" in done.stderr


def test_the_example_rings_for_what_was_asked(bundle, tmp_path):
    model, surest = Model.load(bundle), None
    for seed in range(10):
        image = draw_image(seed, np.random.default_rng(seed), 160)
        best = model.classify(image, 1)[0]
        if surest is None or best.probability > surest[0].probability:
            surest = best, image
    best, image = surest
    assert best.probability >= 0.5
    command = [sys.executable, "-u", str(EXAMPLE), str(bundle), str(tmp_path)]
    done = subprocess.run([*command, "unicorn"], capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "knows no 'unicorn'" in done.stderr
    process = watching([*command, best.label])
    try:
        image.save(tmp_path / "x.png")
        assert process.stdout is not None
        assert best.label in process.stdout.readline()
    finally:
        process.kill()
        process.wait()


def watched(folder, monkeypatch, *steps):
    """What a watch gives after each step: names of pictures, and errors as they are."""
    monkeypatch.setattr(sources, "POLL_SECONDS", 0.0)
    looks = iter(steps)

    def pause(_):
        try:
            next(looks)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(sources, "time", SimpleNamespace(sleep=pause, monotonic=lambda: 0.0))
    found = []
    with contextlib.suppress(KeyboardInterrupt):
        for name, image in sources.watch_folder(folder):
            found.append(str(image) if isinstance(image, InputError) else Path(name).name)
    return found


def nothing():
    pass


def test_a_folder_that_goes_and_comes_back_is_watched_on(tmp_path, monkeypatch):
    folder, away = tmp_path / "in", tmp_path / "away"
    folder.mkdir()
    picture(folder / "old.png", 0)
    found = watched(
        folder, monkeypatch, lambda: folder.rename(away), nothing, nothing, lambda: away.rename(folder), nothing,
        lambda: picture(folder / "new.png", 1), nothing, nothing, lambda: folder.rename(away), nothing,
    )  # fmt: skip
    gone = f"{folder}: No such file or directory; waiting for it"
    assert found == [gone, "new.png", gone]


def test_what_is_no_regular_file_is_passed_over(tmp_path, monkeypatch):
    def put():
        os.mkfifo(tmp_path / "a.jpg")
        (tmp_path / "b.jpg").symlink_to("/dev/zero")
        (tmp_path / "c.jpg").symlink_to("nothing")
        (tmp_path / "d.jpg").mkdir()
        (tmp_path / "e.jpg").symlink_to(tmp_path / "e.jpg")
        picture(tmp_path / "z.png", 0)

    assert watched(tmp_path, monkeypatch, put, nothing, nothing) == ["z.png"]


def test_a_name_that_is_used_again_is_another_picture(tmp_path, monkeypatch):
    path, stamp = tmp_path / "x.bmp", (1_700_000_000, 1_700_000_000)

    def put(colour):
        path.unlink(missing_ok=True)
        Image.new("RGB", (20, 20), colour).save(path)
        os.utime(path, stamp)

    found = watched(
        tmp_path, monkeypatch, lambda: put("red"), nothing, nothing, path.unlink, nothing, lambda: put("blue"), nothing,
        nothing, lambda: put("green"), nothing, nothing,
    )  # fmt: skip
    assert found == ["x.bmp"] * 3


def test_twenty_thousand_files_take_a_small_share_of_a_core(tmp_path, monkeypatch):
    for i in range(20_000):
        (tmp_path / f"{i}.jpg").touch()
    clock, pauses = [0.0], []
    images = sources._images

    def looked(folder):
        clock[0] += 0.5  # seconds that a look takes
        return images(folder)

    monkeypatch.setattr(sources, "_images", looked)

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            picture(tmp_path / "n.png", 0)

    monkeypatch.setattr(sources, "time", SimpleNamespace(sleep=pause, monotonic=lambda: clock[0]))
    frames = sources.watch_folder(tmp_path)
    assert Path(next(frames)[0]).name == "n.png"
    assert min(pauses) >= 9 * 0.5


def test_names_that_are_gone_are_forgotten_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_FORGOTTEN", 3)
    done = np.arange(10)
    picture(tmp_path / "a.png", 0)
    frames = sources._appearing(tmp_path, done)
    monkeypatch.setattr(sources, "POLL_SECONDS", 0.0)
    assert Path(next(frames)[0]).name == "a.png"
    assert len(frames.gi_frame.f_locals["done"]) == 1


def test_a_fifo_is_refused_where_it_is_named(bundle, tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    done = device("classify", bundle, tmp_path / "x.jpg")
    assert done.returncode == 2
    assert b"x.jpg: not a regular file" in done.stderr


def test_standard_input_that_is_too_large_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(sources, "MOST_STDIN_BYTES", 2 << 20)
    monkeypatch.setattr(sources.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes(3 << 20))))
    with pytest.raises(InputError, match="more than 2 MB is no image"):
        sources.stdin_image()
