"""labels.csv: forms that spreadsheets write, and one line with file and row for what is wrong."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhyvit import data
from qhyvit.bundle import label_names
from qhyvit.errors import InputError
from qhyvit.labels import labelled_images
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import LabelMaps
from qhyvit_device.preprocess import Preprocess


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("a", "b", "café")):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def read(folder, text):
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return data.read_labels(folder)


@pytest.mark.parametrize("text", [
    "file,class_index\na.png,1\nb.png,0\n", "\ufefffile,class_index\na.png,1\nb.png,0\n",
    "file,class_index\r\na.png,1\r\nb.png,0\r\n", "class_index,file,note\n1,a.png,x\n0,b.png,\n",
    "file, class_index\na.png, 1\n\nb.png,0\n", 'file,class_index\n"a.png","1"\n"b.png","0"\n',
])  # fmt: skip
def test_forms_that_mean_the_same(folder, text):
    found = read(folder, text)
    assert [p.name for p in found.paths] == ["a.png", "b.png"]
    assert found.truth.tolist() == [1, 0]
    assert found.truth.dtype == np.int64


def test_names_beyond_ascii_are_read(folder):
    assert read(folder, "file,class_index\ncafé.png,1\n").paths[0].name == "café.png"


@pytest.mark.parametrize(("text", "words"), [
    ("file,class_index\na.png\n", "row 2: 1 values for 2 columns"),
    ("file,class_index\na.png,1\nb.png\n", "row 3: 1 values"),
    ("file,class_index\na.png,1,2\n", "row 2: 3 values"),
    ("file,class_index\na.png,\n", "row 2: class_index is ''"),
    ("file,class_index\na.png,-1\n", "row 2: class_index is '-1'"),
    ("file,class_index\na.png,1.0\n", "row 2: class_index is '1.0'"),
    ("file,class_index\na.png,cat\n", "row 2: class_index is 'cat'"),
    ("file,class_index\na.png,\u0663\n", "row 2: class_index"),
    ("file,class_index\na.png,99999999999999999999\n", "row 2: class_index"),
    ("file,class_index\ncafé.png,1\n".encode("latin-1"), "line 2: not UTF-8"),
    ("file,class_index\na.png,1\n".encode("utf-16"), "not UTF-8"),
    ("file;class_index\na.png;1\n", "must have the columns file and class_index"),
    ("a.png,1\n", "must have the columns"), ("", "must have the columns"), ("file,class_index\n", "a row for each"),
    ("file,class\na.png,1\n", "must have the columns"), ("file,class_index\nnone.png,1\n", "not there, first none.png"),
    ("file,class_index\n,1\n", "not there"), (b"file,class_index\na\0.png,1\n", "labels"),
])  # fmt: skip
def test_what_is_wrong_is_one_line_with_file_and_row(folder, text, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read(folder, text)
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_labels_from_one_are_refused_with_the_remedy(folder):
    (folder / "labels.csv").write_text("file,class_index\na.png,1\nb.png,2\n")
    with pytest.raises(InputError, match="go up to class 2, the model has 2 classes; they count from 1: subtract 1"):
        labelled_images(folder, None, task("classify"), 2)
    assert labelled_images(folder, None, task("classify"), 3).truth.tolist() == [1, 2]
    (folder / "labels.csv").write_text("file,class_index\na.png,701\nb.png,0\n")
    with pytest.raises(InputError, match=r"go up to class 701, the model has 2 classes$"):
        labelled_images(folder, None, task("classify"), 2)


def test_label_names_are_utf8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfdisc\r\nstar\r\n")
    assert label_names(path, 2) == ["disc", "star"]
    with pytest.raises(InputError, match="holds 2 names for 3"):
        label_names(path, 3)
    path.write_bytes(b"disc\ncaf\xe9\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        label_names(path, 2)
    assert label_names(None, 2) == ["class 0", "class 1"]


def test_all_bad_images_are_named_in_one_line(folder):
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "notes.jpg").write_text("no picture")
    (folder / "._a.png").write_bytes(b"\0\5\26\7")
    how = Preprocess("crop", 4, "bicubic")
    for check in (
        lambda: data.check_images(folder, 99, 0, verify=True),
        lambda: data.load_pixels([*data.calibration_images(folder, 99, 0).values()], (4, 4, 3), how),
    ):
        with pytest.raises(InputError, match="2 of 5 images cannot be used: ") as found:
            check()
        assert re.search(r"half\.png: .", str(found.value))
        assert re.search(r"notes\.jpg: not an", str(found.value))
        assert "\n" not in str(found.value)


def test_contents_and_seed_alone_decide_what_is_drawn(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    shuffled = {"one": names, "two": names[::-1], "three": [f"deep/{n}" for n in names[7:] + names[:7]]}
    drawn = {}
    for place, given in shuffled.items():
        for i, name in enumerate(given):
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"picture %d" % i)
        (tmp_path / place / "again.png").write_bytes(b"picture 3")  # counts once
        drawn[place] = [
            (list(data.calibration_images(tmp_path / place, 6, seed)),
             list(data.verification_images(tmp_path / place, data.calibration_images(tmp_path / place, 6, 0), 9, seed)))
            for seed in (0, 1)
        ]  # fmt: skip
        every = data.calibration_images(tmp_path / place, 99, 0)
        assert len(every) == 20
        assert all(data.hash_files([path]) == [content] for content, path in every.items())
        assert list(every)[:6] == drawn[place][0][0]
    assert drawn["one"] == drawn["two"] == drawn["three"]
    (calibration, verification), (other, _) = drawn["one"]
    assert set(calibration) != set(other)
    assert len(calibration) == len(set(calibration)) == 6
    assert len(verification) == 9
    assert not set(calibration) & set(verification)


def test_every_picture_is_drawn_as_often_as_others():
    contents = {hashlib.sha256(b"%d" % i).hexdigest(): Path(str(i)) for i in range(10)}
    times = dict.fromkeys(contents, 0)
    for seed in range(2000):
        for content in data.draw(contents, 3, seed):
            times[content] += 1
    assert sum(times.values()) == 6000
    assert all(abs(n - 600) < 6 * (2000 * 0.3 * 0.7) ** 0.5 for n in times.values())


def test_another_picture_takes_the_place_of_one_at_most():
    contents = {hashlib.sha256(b"%d" % i).hexdigest(): Path(str(i)) for i in range(60)}
    for new in list(contents):
        before = data.draw({h: p for h, p in contents.items() if h != new}, 20, 5)
        assert len(before.keys() - data.draw(contents, 20, 5).keys()) <= 1


def test_a_subset_of_labelled_images_is_drawn_by_content_and_keeps_its_classes(folder, tmp_path):
    found = read(folder, "file,class_index\na.png,1\nb.png,0\ncafé.png,2\n")
    turned = read(folder, "file,class_index\ncafé.png,2\nb.png,0\na.png,1\n")
    for seed in range(5):
        some = [data.subset(each, 2, seed) for each in (found, turned)]
        pairs = [set(zip(each.paths, each.truth.tolist(), strict=True)) for each in some]
        assert pairs[0] == pairs[1]
        assert len(pairs[0]) == 2
        assert pairs[0] < set(zip(found.paths, found.truth.tolist(), strict=True))
    assert data.subset(found, 3, 0) is found


def test_images_that_verification_takes_are_checked_too(folder):
    bad = folder / "notes.png"
    bad.write_text("no picture")
    seed = next(s for s in range(99) if bad not in data.calibration_images(folder, 1, s).values())
    data.check_images(folder, 1, seed, verify=False)
    with pytest.raises(InputError, match=r"notes\.png: not an image"):
        data.check_images(folder, 1, seed, verify=True)


def test_crops_are_parts_of_the_mirrored_image(tmp_path):
    """Brightness rises from left to right in the image, so it falls in every view; a view spans 0.6 to 0.9 of it."""
    ramp = np.broadcast_to(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (120, 200, 3))
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.fromarray(ramp).save(path)
    how = Preprocess("squash", 32, "bilinear")
    views = data.mirrored_crops(paths, (32, 32, 3), how, 7)
    assert views.shape == (4, 32, 32, 3)
    rows = views[:, 16, 2:-2, 0].astype(int)
    assert (np.diff(rows, axis=1) <= 0).all()
    spans = rows.max(axis=1) - rows.min(axis=1)
    assert ((spans > 0.45 * 255) & (spans < 0.95 * 255)).all()
    assert len({view.tobytes() for view in views}) == 4
    assert (data.mirrored_crops(paths, (32, 32, 3), how, 7) == views).all()


VALUES = "file,round,hollow\na.png,1,0\nb.png,0,1\n"


@pytest.mark.parametrize(("names", "truth"), [
    (("round", "hollow"), [[1, 0], [0, 1]]), (("hollow", "round"), [[0, 1], [1, 0]]),
    (("class 0", "class 1"), [[1, 0], [0, 1]]), (("same", "same"), [[1, 0], [0, 1]]), ((), [[1, 0], [0, 1]]),
])  # fmt: skip
def test_columns_of_values_go_by_their_names_where_somebody_gave_some(folder, names, truth):
    (folder / "labels.csv").write_text(VALUES)
    assert labelled_images(folder, None, task("multilabel"), 2, names=names).truth.tolist() == truth


def test_values_with_other_names_are_refused(folder):
    (folder / "labels.csv").write_text(VALUES)
    with pytest.raises(InputError, match=r"columns round, hollow; the model's values are round, pointed"):
        labelled_images(folder, None, task("regress"), 2, names=("round", "pointed"))


def test_classes_are_no_values(folder):
    (folder / "labels.csv").write_text("file,label,class_index\na.png,disc,1\nb.png,ring,0\n")
    with pytest.raises(InputError, match=r"are classes \(class_index\).*--labels"):
        labelled_images(folder, None, task("multilabel"), 2)


def picture(path, value, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (2, 2), value).save(path)


def test_images_of_one_name_in_two_folders_have_maps_in_two_folders(tmp_path):
    images, maps = tmp_path / "images", tmp_path / "maps"
    for part in "ab":
        picture(images / part / "0.png", 0)
    picture(maps / "0.png", 1)
    with pytest.raises(InputError, match=r"would be the map of a/0\.png and b/0\.png"):
        data.read_maps(images, maps, None)
    picture(maps / "b" / "0.png", 2)  # the other one is the common one's
    assert data.read_maps(images, maps, None).truth.paths == [maps / "0.png", maps / "b" / "0.png"]


@pytest.mark.parametrize(("mode", "value", "right"), [
    ("L", 1, 100), ("P", 1, 100), ("1", 1, 100), ("I;16", 1, 100), ("RGB", (1, 1, 1), 100), ("L", 0, 0),
])  # fmt: skip
def test_a_map_holds_classes_in_whatever_way_it_was_stored(tmp_path, mode, value, right):
    picture(tmp_path / "0.png", value, mode)
    ones = np.broadcast_to(np.float32([0, 1]), (1, 2, 2, 2)).reshape(1, 8)  # class 1 everywhere
    score = task("segment").score(ones, LabelMaps([tmp_path / "0.png"], None), Layout(("map",), ((2, 2, 2),)))
    assert score.figures["pixel_accuracy_percent"] == right


def test_a_map_in_colours_is_refused(tmp_path):
    picture(tmp_path / "0.png", (3, 0, 0), "RGB")
    with pytest.raises(InputError, match="has colours"):
        task("segment").score(np.zeros((1, 8)), LabelMaps([tmp_path / "0.png"], None), Layout(("map",), ((2, 2, 2),)))
