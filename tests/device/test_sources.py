"""Watched folders, standard input and cameras, and the example program."""

import io
import json
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
