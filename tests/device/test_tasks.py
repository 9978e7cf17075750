"""What bundles of every task say of a picture: their outputs are its colours, so that it follows by hand."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from qhyvit_device import Gallery, Model, overlay, results
from qhyvit_device.errors import InputError
from qhyvit_device.manifest import Output
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.results import Outputs
from tests._bundles import COLOURS, SIZE, device, found, picture, saved


def test_classes_are_a_softmax(bundles, photo, capsys):
    shares = np.exp([0.75, 0.25, 0.5]) / np.exp([0.75, 0.25, 0.5]).sum()
    got = found(capsys, "classify", bundles["classify"], photo)["predictions"]
    assert [p["label"] for p in got] == ["red", "blue", "green"]
    assert [p["probability"] for p in got] == pytest.approx(shares[[0, 2, 1]], abs=1e-3)
    assert len(found(capsys, "classify", bundles["classify"], photo, "--top", "1")["predictions"]) == 1


@pytest.mark.parametrize(("options", "labels"), [
    ((), ["red", "blue"]), (("--threshold", "0.6"), ["red"]), (("--threshold", "0"), ["red", "blue", "green"]),
    (("--threshold", "0.9"), []), (("--top", "3"), ["red", "blue", "green"]), (("--top", "1"), ["red"]),
])  # fmt: skip
def test_labels_that_hold_together_are_a_sigmoid_each(bundles, photo, capsys, options, labels):
    got = found(capsys, "classify", bundles["multilabel"], photo, *options)["predictions"]
    expected = {"red": 1 / (1 + np.exp(-1.5)), "green": 1 / (1 + np.exp(1.5)), "blue": 0.5}  # 6 mean - 3
    assert [p["label"] for p in got] == labels
    assert [p["probability"] for p in got] == pytest.approx([expected[name] for name in labels], abs=1e-6)


def test_people_are_told_that_no_label_holds(bundles, photo, capsys):
    assert device(capsys, "classify", bundles["multilabel"], photo, "--threshold", "0.9")[1] == [
        str(photo), "  no label holds"
    ]  # fmt: skip


def test_one_logit_is_a_sigmoid_and_no_softmax(bundles, photo, capsys):
    (got,) = found(capsys, "classify", bundles["one"], photo)["predictions"]
    assert (got["label"], got["probability"]) == ("red", pytest.approx(1 / (1 + np.exp(-1.5))))


def test_a_regression_gives_its_values(bundles, photo, capsys):
    assert found(capsys, "classify", bundles["regress"], photo)["values"] == [{"name": "redness", "value": 1.5}]
    assert device(capsys, "classify", bundles["regress"], photo)[1][1] == "  1.5  redness"


def test_values_without_labels_have_their_outputs_names():
    outputs = Outputs(
        [Output("a", (1, 1), "int8", 0.5, 1), Output("b", (2,), "float32", None, None)],
        [np.array([[3]], np.int8), np.array([0.25, -4], np.float32)],
    )
    assert [(v.name, v.value) for v in results.values(outputs, [])] == [("a", 1.0), ("b[0]", 0.25), ("b[1]", -4.0)]
    assert [v.name for v in results.values(outputs, ["x"])] == ["x", "b[0]", "b[1]"]


def test_an_embedding_has_length_1_and_is_written(bundles, photo, tmp_path, capsys):
    other = saved(picture(["g"]), tmp_path / "z.png")
    code, out, _ = device(capsys, "embed", bundles["embed"], photo, other, "--out", tmp_path / "e.npy", "--json")
    said, written = json.loads(out[0]), np.load(tmp_path / "e.npy", allow_pickle=False)
    expected = np.array([[0.75, 0.25, 0.5], [0, 1, 0]]) / [[np.sqrt(0.875)], [1]]
    assert code == 0
    assert said["out"] == str(tmp_path / "e.npy")
    assert written.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(written, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(written, expected, atol=0.005)
    np.testing.assert_allclose([r["embedding"] for r in said["results"]], written, atol=1e-6)
    assert device(capsys, "embed", bundles["embed"], other)[1] == [str(other), "  3 values: 0.0000 1.0000 0.0000"]


def test_black_has_an_embedding_of_zeros(bundles):
    assert Model.load(bundles["embed"]).embed(picture(["K"])).tolist() == [0, 0, 0]


def test_neighbours_are_the_nearest_by_cosine(bundles, photo, gallery, capsys):
    got = found(capsys, "embed", bundles["embed"], photo, "--gallery", gallery)["neighbours"]
    vector = np.array([0.75, 0.25, 0.5]) / np.sqrt(0.875)
    expected = {"anna/1.png": vector[0], "anna/2.png": vector.sum() / np.sqrt(3), "bob/1.png": vector[1],
                "eve/1.png": vector[2]}  # fmt: skip
    assert [n["image"] for n in got] == sorted(expected, key=lambda name: -expected[name])
    assert [n["cosine"] for n in got] == pytest.approx([expected[n["image"]] for n in got], abs=0.005)
    lines = device(capsys, "embed", bundles["embed"], photo, "--gallery", gallery, "--top", "1")[1]
    assert len(lines) == 2
    assert lines[1].endswith("  anna/2.png")


def test_a_picture_of_the_gallery_is_not_its_own_neighbour(bundles, gallery, capsys):
    got = found(capsys, "embed", bundles["embed"], gallery / "anna" / ".." / "anna" / "1.png", "--gallery", gallery)
    assert [n["image"] for n in got["neighbours"]] == ["anna/2.png", "bob/1.png", "eve/1.png"]


def test_broken_pictures_of_a_gallery_cost_nothing_but_themselves(bundles, photo, gallery, capsys):
    (gallery / "bob" / "1.png").write_text("no picture")
    code, out, err = device(capsys, "embed", bundles["embed"], photo, "--gallery", gallery, "--json")
    assert code == 1
    assert len(json.loads(out[0])["results"][0]["neighbours"]) == 3
    assert [e["image"] for e in json.loads(out[0])["errors"]] == [str(gallery / "bob" / "1.png")]
    assert len(err) == 1
    with pytest.raises(InputError, match="not an image"):
        Gallery(Model.load(bundles["embed"]), gallery)
    for path in gallery.rglob("*.png"):
        path.write_text("no picture")
    code, out, err = device(capsys, "embed", bundles["embed"], photo, "--gallery", gallery)
    assert (code, out) == (2, [])
    assert "none of its images can be read" in err[-1]


# --- maps ---


def test_shares_of_a_map_are_those_of_the_picture(bundles, tmp_path, capsys):
    path = saved(picture(["rrgg", "rrgg", "bbbb", "rrrr"]), tmp_path / "a.png")  # seen at every second pixel
    got = found(capsys, "segment", bundles["segment"], path)["classes"]
    model = Model.load(bundles["segment"])
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(model.run(model.prepare(path)).dequantized()).permute(0, 3, 1, 2).double(), (SIZE, SIZE),
        mode="bilinear",
    )[0].argmax(0)  # fmt: skip
    assert {c["label"]: c["share"] for c in got} == {
        name: pytest.approx(float((expected == i).double().mean())) for i, name in enumerate(COLOURS)
    }
    assert [c["share"] for c in got] == sorted((c["share"] for c in got), reverse=True)
    assert sum(c["share"] for c in got) == pytest.approx(1)


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (37, 5), (3, 64), (1, 1), (120, 90)])
@pytest.mark.parametrize("strip", [1, 500, 1 << 22])
def test_logits_are_resized_bilinearly_before_the_largest_counts(size, strip, monkeypatch):
    """torch's own interpolation, without its corners aligned; ties apart, which are exact here."""
    monkeypatch.setattr(results, "STRIP", strip)
    rng = np.random.default_rng(sum(size))
    codes = rng.integers(-128, 128, (1, 8, 11, 5), dtype=np.int8)
    fact = Output("map", codes.shape, "int8", 0.03, 7)
    got = results.segmentation(Outputs([fact], [codes]), "abcde", *size)
    values = torch.from_numpy((codes.astype(np.float64) - 7) * 0.03).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)[0]
    best = expected.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-5).numpy()
    assert clear.mean() > 0.9
    assert got.classes.shape == size
    assert (got.classes == expected.argmax(0).numpy())[clear].all()


def test_one_channel_tells_its_class_from_the_background(bundles, tmp_path, capsys):
    path = saved(picture(["rrrr", "KKKK", "KKKK", "KKKK"]), tmp_path / "a.png")
    got = found(capsys, "segment", bundles["mask"], path)["classes"]
    assert [(c["label"], c["index"]) for c in got] == [("background", 0), ("red", 1)]
    codes = np.array([[[[2], [4]], [[3], [2]]]], np.int8)
    masks = results.segmentation(Outputs([Output("m", (1, 2, 2, 1), "int8", 0.1, 3)], [codes]), ["x"], 2, 2)
    assert masks.classes.tolist() == [[0, 1], [0, 0]]  # above the zero point


def test_a_map_is_drawn_over_the_picture_with_a_legend(bundles, tmp_path, capsys):
    path, out = saved(picture(["rg", "rg"], 64), tmp_path / "a.png"), tmp_path / "out.png"
    code, lines, _ = device(capsys, "segment", bundles["segment"], path, "--draw", out)
    assert code == 0
    assert lines == [str(path), "   50.0 %  red (0)", "   50.0 %  green (1)", f"  drawn: {out}"]
    drawing, colours = np.asarray(Image.open(out)).astype(int), overlay.palette(3).astype(int)
    assert drawing.shape[1] == overlay.LEAST_SIDE
    assert drawing.shape[0] > overlay.LEAST_SIDE
    assert drawing[100, 100].tolist() == ((np.array([255, 0, 0]) + colours[0]) // 2).tolist()
    assert drawing[100, 400].tolist() == ((np.array([0, 255, 0]) + colours[1]) // 2).tolist()
    legend = drawing[overlay.LEAST_SIDE :]
    for i in range(2):
        row = overlay.MARGIN + overlay.ROW * i + overlay.ROW // 2
        assert legend[row, overlay.MARGIN + 5].tolist() == colours[i].tolist()
    assert (legend < 100).all(2).any()  # letters


@pytest.mark.parametrize(("how", "size"), [
    (Preprocess("squash", 8, "bilinear"), (256, 512)), (Preprocess("crop", 10, "bilinear"), (512, 768)),
])  # fmt: skip
def test_what_is_drawn_has_the_aspect_of_what_the_model_sees(how, size):
    pixels = overlay.view(picture(["rrgg", "rrgg"], 80).resize((160, 80)), 8, 12, how)
    assert pixels.shape == (*((256, 512) if how.mode == "squash" else (43 * 8, 43 * 12)), 3)
    assert pixels[5, 5].tolist() == [255, 0, 0]
    assert pixels[5, -5].tolist() == [0, 255, 0]


def test_a_legend_takes_any_label_and_any_number(monkeypatch):
    labels = ("a" * 300, "é中\x1b[2J\n", *(str(i) for i in range(60)))
    classes = np.arange(62, dtype=np.uint16).reshape(31, 2)
    found = results.SegmentationMap(classes, labels)
    for font in (None, "bitmap"):
        if font:
            from PIL import ImageFont

            monkeypatch.setattr(overlay.ImageFont, "load_default", ImageFont.load_default_imagefont)
        page = overlay.drawn(np.zeros((31, 2, 3), np.uint8), found, found.shares())
        assert page.height == 31 + 2 * overlay.MARGIN + overlay.ROW * (overlay.MOST_NAMED + 1)
        assert overlay.LEAST_WIDTH <= page.width < 1000
    assert len({tuple(c) for c in overlay.palette(40).tolist()}) == 40


def test_drawings_of_several_images_go_into_a_folder(bundles, photo, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    (tmp_path / "out").mkdir()
    same, broken = tmp_path / "more" / "photo.png", tmp_path / "more" / "z.png"
    shutil.copy(photo, same)
    broken.write_text("no picture")
    words = ["segment", bundles["segment"], photo, same, broken, "--draw", tmp_path / "out"]
    code, _, err = device(capsys, *words)
    assert code == 1
    assert [line.split(": ")[2] for line in err] == [str(same), str(broken)]
    assert "shows another image of this name" in err[0]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.png.png"]
    assert device(capsys, *words[:-1], tmp_path / "none")[0] == 2
