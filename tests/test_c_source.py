"""A bundle as C++ source: what a compiler and the micro interpreter make of it.

The sources of TensorFlow Lite Micro are in no package: headers that stand in for them declare what is used, so that the
compiler checks every line, and no more.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest

from qhyvit import cli
from qhyvit.c_source import c_string, method_of, ops_of, write_c_source
from qhyvit.errors import InputError, QhyvitError
from qhyvit_device.runner import Model
from tests._bundles import NAMES, make_bundle

pytest.importorskip("tflite_micro", reason="needs qhyvit[tflm]")

RESOLVER = """#pragma once
#include <cstddef>
#include <cstdint>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { const TfLiteStatus s = (a); if (s != kTfLiteOk) return s; } while (0)
union TfLitePtrUnion { std::int8_t* int8; };
struct TfLiteTensor { TfLitePtrUnion data; std::size_t bytes; };
namespace tflite {
template <unsigned int n> class MicroMutableOpResolver {
 public:
  @METHODS@
};
}  // namespace tflite
"""
INTERPRETER = """#pragma once
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
namespace tflite {
class MicroInterpreter {
 public:
  template <typename R> MicroInterpreter(const Model*, const R&, std::uint8_t*, std::size_t) {}
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  std::size_t arena_used_bytes() const;
  TfLiteTensor* input(std::size_t);
  TfLiteTensor* output(std::size_t);
  std::size_t outputs_size() const;
};
}  // namespace tflite
"""
SCHEMA = """#pragma once
namespace tflite { struct Model; const Model* GetModel(const void*); }
"""
SETUP = "#pragma once\nnamespace tflite { void InitializeTarget(); }\n"
# as the header of the interpreter has them
METHODS = {"CONV_2D": "AddConv2D", "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D", "FULLY_CONNECTED": "AddFullyConnected",
           "BATCH_MATMUL": "AddBatchMatMul", "PADV2": "AddPadV2", "MAX_POOL_2D": "AddMaxPool2D", "ELU": "AddElu",
           "RESIZE_BILINEAR": "AddResizeBilinear", "REDUCE_MAX": "AddReduceMax", "GATHER_ND": "AddGatherNd",
           "LEAKY_RELU": "AddLeakyRelu", "HARD_SWISH": "AddHardSwish"}  # fmt: skip


def compiled(folder, place):
    """The compiler's words about all that was written; "" where it has none."""
    about = json.loads((folder / "model.json").read_text())
    micro, schema = place / "tensorflow/lite/micro", place / "tensorflow/lite/schema"
    for each in (micro, schema):
        each.mkdir(parents=True, exist_ok=True)
    methods = " ".join(f"TfLiteStatus {name}() {{ return kTfLiteOk; }}" for name in about["ops"])
    (micro / "micro_mutable_op_resolver.h").write_text(RESOLVER.replace("@METHODS@", methods))
    (micro / "micro_interpreter.h").write_text(INTERPRETER)
    (micro / "system_setup.h").write_text(SETUP)
    (schema / "schema_generated.h").write_text(SCHEMA)
    words = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", place, "-I", folder]
    words += sorted(folder.glob("*.cc"))
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False).stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("name", NAMES)
def test_a_compiler_takes_every_line(tmp_path, name):
    bundle = make_bundle(tmp_path / "b", name)
    write_c_source(bundle, tmp_path / "c", "qhyvit")
    assert compiled(tmp_path / "c", tmp_path / "include") == ""
    assert ("kLabels[best]" in (tmp_path / "c" / "main.cc").read_text()) == (name == "classify")


def numbers(text, name):
    """What the array of a name holds."""
    return np.array([int(v) for v in text.split(f"{name}[] = {{")[1].split("}")[0].replace("\n", "").split(",")])


def test_the_arrays_are_the_bundles(tmp_path, capsys):
    bundle = make_bundle(tmp_path / "b", "classify")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bundle-c", str(bundle), "--out", str(tmp_path / "c"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    text, model = (tmp_path / "c" / "model.cc").read_text(), Model.load(bundle)
    content = (bundle / "model.tflite").read_bytes()
    assert bytes(numbers(text, "kModel").astype(np.uint8)) == content
    assert said["model_bytes"] == len(content)
    assert said["ops"] == ["AddMean"]
    assert 256 < said["arena_bytes"] < 1 << 16
    assert numbers(text, "kTestOutput").tolist() == list(model.manifest.test.codes)
    red = numbers(text, "kTestInput").reshape(8, 8, 3)[0, 0]
    assert red.tolist() == [127, -128, -128]
    assert '"red"' in text
    header = (tmp_path / "c" / "model.h").read_text()
    assert f"kInputScale = {model.manifest.input.scale}f" in header


def test_names_become_c_strings_whatever_they_hold(tmp_path):
    for wrong in ('a"b\\c', "größe", "??/ end"):
        code = c_string(wrong)
        assert code.isascii()
        source = f'#include <cstdio>\nint main() {{ std::fputs({code}, stdout); }}\n'
        (tmp_path / "x.cc").write_text(source)
        subprocess.run(["g++", "-o", str(tmp_path / "x"), str(tmp_path / "x.cc")], check=True)
        assert subprocess.run([str(tmp_path / "x")], capture_output=True, check=True).stdout.decode() == wrong


@pytest.mark.parametrize(("op", "method"), METHODS.items())
def test_methods_are_those_of_the_resolver(op, method):
    assert method_of(op) == method


def test_ops_are_listed_once(tmp_path):
    bundle = make_bundle(tmp_path / "b", "several")
    assert ops_of((bundle / "model.tflite").read_bytes()) == ["CONV_2D", "FULLY_CONNECTED", "MEAN"]


def test_a_folder_of_others_is_left_alone(tmp_path):
    bundle, out = make_bundle(tmp_path / "b", "classify"), tmp_path / "c"
    write_c_source(bundle, out, "qhyvit")
    write_c_source(bundle, out, "qhyvit", force=True)
    (out / "mine.cc").write_text("int x;\n")
    with pytest.raises(QhyvitError, match="c"):
        write_c_source(bundle, out, "qhyvit", force=True)
    assert (out / "mine.cc").is_file()


def test_a_file_that_the_micro_interpreter_refuses_is_refused(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "b", "classify")

    def refuse(*_):
        raise InputError("cannot run the file")

    monkeypatch.setattr("qhyvit.c_source.run_micro", refuse)
    with pytest.raises(InputError, match="cannot run"):
        write_c_source(bundle, tmp_path / "c", "qhyvit")
    assert not (tmp_path / "c").exists()
