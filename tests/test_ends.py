"""Files with other ends, and the page for a browser: what other runtimes make of them is what the bundle gives."""

import io
import json
import os
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from qhyvit import cli, files
from qhyvit.ends import write_ends
from qhyvit.errors import CheckFailedError, InputError, OutputError
from qhyvit.web import write_page
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.runner import Model, TfliteFile
from tests._bundles import HOW, SIZE, make_bundle

NORMAL = Preprocess("squash", SIZE, "nearest", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RNG = np.random.default_rng(5)
PICTURES = [RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(12)]


def metadata(content):
    """The buffer of a file that is named TFLITE_METADATA."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (entry,) = (m for m in model.metadata if m.name == b"TFLITE_METADATA")
    return bytes(model.buffers[entry.buffer].data)


@pytest.mark.parametrize("how", [HOW, NORMAL], ids=["codes are pixels", "normalised"])
@pytest.mark.parametrize("name", ["classify", "multilabel", "segment", "several"])
def test_uint8_ends_take_pixels_and_give_the_same_codes(tmp_path, name, how):
    bundle = make_bundle(tmp_path / "b", name, how)
    found = write_ends(bundle, tmp_path / "u.tflite", "uint8")
    model, ended = Model.load(bundle), TfliteFile((tmp_path / "u.tflite").read_bytes())
    assert np.dtype(ended.input["dtype"]) == np.uint8
    for pixels in PICTURES:
        own = model.file.invoke(model.prepare(pixels))
        for mine, made, details in zip(own, ended.invoke(pixels), ended.outputs, strict=True):
            assert made.dtype == np.uint8
            assert details["quantization"][1] >= 0
            assert np.abs(made.astype(int) - 128 - mine).max() <= (how is NORMAL)
    assert found.equal > 0.99


@pytest.mark.parametrize("how", [HOW, NORMAL], ids=["plain", "normalised"])
def test_float_ends_give_the_values(tmp_path, how):
    bundle = make_bundle(tmp_path / "b", "classify", how)
    assert write_ends(bundle, tmp_path / "f.tflite", "float32").equal == 1.0
    model, ended = Model.load(bundle), TfliteFile((tmp_path / "f.tflite").read_bytes())
    for pixels in PICTURES:
        values = (pixels / np.float32(255) - np.float32(how.mean)) / np.float32(how.std)
        (made,) = ended.invoke(values.astype(np.float32))
        assert np.allclose(made, model.run(model.prepare(pixels)).dequantized("logits"))


def test_metadata_hold_the_normalisation_and_the_labels(tmp_path):
    bundle = make_bundle(tmp_path / "b", "classify", NORMAL)
    write_ends(bundle, tmp_path / "f.tflite", "float32", licence="Apache-2.0")
    content = (tmp_path / "f.tflite").read_bytes()
    found = metadata(content)
    assert found[4:8] == b"M001"
    for text in (b"classify", b"labels.txt", b"Apache-2.0"):
        assert text in found
    mean, std = (np.float32([255 * v for v in vs]).tobytes() for vs in (NORMAL.mean, NORMAL.std))
    assert mean in found
    assert std in found
    assert zipfile.ZipFile(io.BytesIO(content)).read("labels.txt") == b"red\ngreen\nblue\n"
    write_ends(bundle, tmp_path / "again.tflite", "float32", licence="Apache-2.0")
    assert (tmp_path / "again.tflite").read_bytes() == content


def test_a_file_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "b", "classify")
    original = TfliteFile.invoke

    def off(self, array):
        return [x - 40 if x.dtype == np.uint8 else x for x in original(self, array)]

    monkeypatch.setattr(TfliteFile, "invoke", off)
    with pytest.raises(CheckFailedError, match="is not what the bundle's file gives"):
        write_ends(bundle, tmp_path / "u.tflite", "uint8")
    assert not (tmp_path / "u.tflite").exists()


def test_files_in_the_way_and_wrong_ends_are_refused(tmp_path, capsys):
    bundle, out = make_bundle(tmp_path / "b", "classify"), tmp_path / "u.tflite"
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        write_ends(bundle, out, "uint8")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bundle-tflite", str(bundle), "--ends", "int4", "--out", str(out)])
    assert ended.value.code == 2
    assert "must be one of uint8, float32" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"


def test_mediapipe_decides_as_the_bundle(tmp_path):
    mediapipe = pytest.importorskip("mediapipe", reason="pip install mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    bundle = make_bundle(tmp_path / "b", "classify", NORMAL)
    for kind in ("uint8", "float32"):
        file = tmp_path / f"{kind}.tflite"
        write_ends(bundle, file, kind)
        options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(file)), max_results=1)
        with vision.ImageClassifier.create_from_options(options) as classifier:
            for pixels in PICTURES:
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
                best = classifier.classify(image).classifications[0].categories[0]
                assert best.category_name == Model.load(bundle).classify(pixels)[0].label


# --- the page ---


@pytest.fixture
def modules(tmp_path):
    """A node_modules with files that stand for LiteRT.js."""
    for name in ("core", "wasm-utils"):
        (tmp_path / "node_modules" / "@litertjs" / name / "dist").mkdir(parents=True)
        (tmp_path / "node_modules" / "@litertjs" / name / "dist" / "index.js").write_text(f"// {name}\n")
    wasm = tmp_path / "node_modules" / "@litertjs" / "core" / "wasm"
    wasm.mkdir()
    for name in ("litert_wasm_internal.js", "litert_wasm_threaded_internal.wasm", "litert_wasm_internal.wasm"):
        (wasm / name).write_text(name)
    return tmp_path / "node_modules"


def test_the_page_holds_all_that_it_needs(tmp_path, modules):
    bundle = make_bundle(tmp_path / "b", "classify")
    write_page(bundle, modules, tmp_path / "web")
    names = {p.relative_to(tmp_path / "web").as_posix() for p in (tmp_path / "web").rglob("*") if p.is_file()}
    assert names == {"index.html", "model.tflite", "litert/core/index.js", "litert/wasm-utils/index.js",
                     "litert/wasm/litert_wasm_internal.js", "litert/wasm/litert_wasm_internal.wasm"}  # fmt: skip
    page = (tmp_path / "web" / "index.html").read_text()
    facts = json.loads(page.split("const facts = ")[1].split(";\n")[0])
    assert facts["labels"] == ["red", "green", "blue"]
    assert (facts["height"], facts["width"], facts["channels"]) == (SIZE, SIZE, 3)
    assert "http://" not in page
    assert "https://" not in page


def test_a_label_cannot_end_the_script(tmp_path, modules):
    bundle = make_bundle(tmp_path / "b", "classify")
    text = (bundle / "labels.txt").read_text().replace("red", "</script><script>alert(1)</script>")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "labels.txt").write_text(text)
    manifest["checksums"]["labels.txt"] = files.sha256(text.encode())
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    write_page(bundle, modules, tmp_path / "web")
    assert "alert(1)</script>" not in (tmp_path / "web" / "index.html").read_text()


def test_without_litertjs_the_command_that_installs_it_is_said(tmp_path):
    bundle = make_bundle(tmp_path / "b", "classify")
    with pytest.raises(InputError, match="npm install @litertjs/core"):
        write_page(bundle, tmp_path / "none", tmp_path / "web")
    assert not (tmp_path / "web").exists()


def test_what_has_no_classes_gets_no_page(tmp_path, modules):
    with pytest.raises(InputError, match="use qhyvit-device segment"):
        write_page(make_bundle(tmp_path / "b", "segment"), modules, tmp_path / "web")
    for name in ("multilabel", "regress", "one"):  # a softmax would be wrong for each
        with pytest.raises(InputError, match="the page shows one class of several"):
            write_page(make_bundle(tmp_path / name, name), modules, tmp_path / "web")


@pytest.mark.slow
def test_a_browser_gives_the_same_codes(tmp_path):
    """Set QHYVIT_NODE_MODULES to a node_modules with @litertjs/core and puppeteer-core."""
    place, browser = os.environ.get("QHYVIT_NODE_MODULES"), shutil.which("chromium") or shutil.which("google-chrome")
    if not place or browser is None or shutil.which("node") is None:
        pytest.skip("needs node, Chromium and QHYVIT_NODE_MODULES")
    bundle = make_bundle(tmp_path / "b", "classify", replace(NORMAL))
    write_page(bundle, Path(place), tmp_path / "web")
    listed = []
    for i, pixels in enumerate(PICTURES):
        (tmp_path / f"{i}.bin").write_bytes(pixels.tobytes())
        listed.append(str(tmp_path / f"{i}.bin"))
    (tmp_path / "files.json").write_text(json.dumps(listed))
    script = Path(place).parent / "browser.mjs"  # beside its modules, where node looks for them
    shutil.copy(Path(__file__).with_name("browser.mjs"), script)
    names = [tmp_path / "web", tmp_path / "files.json", tmp_path / "out.json", browser]
    subprocess.run(["node", str(script), *map(str, names)], check=True, timeout=300)
    model = Model.load(bundle)
    for pixels, codes in zip(PICTURES, json.loads((tmp_path / "out.json").read_text()), strict=True):
        own = model.file.invoke(model.prepare(pixels))[0].ravel().astype(int) + 128
        assert np.abs(np.array(codes) - own).max() <= 1
