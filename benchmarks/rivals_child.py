"""One file in one runtime, in the rivals' own environment: made, run on images, or timed when it is told to.

This file imports nothing of qhyvit. Images come as [N, 3, H, W] float32. Commands:

    rivals_child.py make RUNTIME model.onnx images.npy OUT   # OUT/float and OUT/int8, whatever the runtime calls them
                                                            # (ExecuTorch reads model.pt2 beside it)
    rivals_child.py run RUNTIME FILE images.npy logits.npy
    rivals_child.py time RUNTIME FILE images.npy   # for each number on stdin so many runs: their milliseconds, one line
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WARM_UP = 5
Infer = Callable[[np.ndarray], np.ndarray]  # [1, 3, H, W] -> [1, outputs]


def onnxruntime_make(model: Path, images: np.ndarray, out: Path) -> None:
    """Its static quantization as documented: QDQ, min-max, weights by channel, behind its preprocessing."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {"x": image[None]}

    (out / "float.onnx").write_bytes(model.read_bytes())
    ready = out / "ready.onnx"
    quant_pre_process(str(model), str(ready))
    quantize_static(str(ready), str(out / "int8.onnx"), Reader(), per_channel=True,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)  # fmt: skip
    ready.unlink()


def onnxruntime_infer(file: Path) -> Infer:
    """One thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": x})[0])


def openvino_make(model: Path, images: np.ndarray, out: Path) -> None:
    """NNCF's post-training quantization for transformers."""
    import nncf
    import openvino

    plain = openvino.Core().read_model(model)
    openvino.save_model(plain, out / "float.xml", compress_to_fp16=False)
    seen = nncf.Dataset([image[None] for image in images])
    made = nncf.quantize(plain, seen, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images))
    openvino.save_model(made, out / "int8.xml", compress_to_fp16=False)


def openvino_infer(file: Path) -> Infer:
    """One thread, for latency, float in 32 bits."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
    return lambda x: np.asarray(next(iter(request.infer([x]).values())))


def mnn_make(model: Path, images: np.ndarray, out: Path) -> None:
    """Its converter; int8 are weights alone, whose activations it computes in float."""
    for name, more in (("float", []), ("int8", ["--weightQuantBits", "8"])):
        command = [Path(sys.executable).with_name("mnnconvert"), "-f", "ONNX", "--modelFile", str(model),
                   "--MNNModel", str(out / f"{name}.mnn"), "--bizCode", "MNN", *more]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def mnn_infer(file: Path) -> Infer:
    """One thread."""
    import MNN.expr as F
    import MNN.nn as nn

    runtime = nn.create_runtime_manager(({"backend": "CPU", "numThread": 1, "precision": "high"},))
    net = nn.load_module_from_file(str(file), ["x"], ["y"], runtime_manager=runtime)

    def infer(x: np.ndarray) -> np.ndarray:
        given = F.placeholder(list(x.shape), F.NCHW)
        given.write(np.ascontiguousarray(x))
        found = net.forward([given])
        return np.array(F.convert(found[0], F.NCHW).read())

    return infer


def ncnn_make(model: Path, images: np.ndarray, out: Path) -> None:
    """Its converter pnnx, weights in 32 bits. Float alone: neither wheel has ncnn2table and ncnn2int8."""
    import ncnn

    made = [out / f"float.{end}" for end in ("param", "bin")]
    shape = ",".join(map(str, (1, *images.shape[1:])))
    command = [Path(sys.executable).with_name("pnnx"), model.name, "fp16=0", f"ncnnparam={made[0]}",
               f"ncnnbin={made[1]}", f"inputshape=[{shape}]"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=model.parent)
    if ncnn.Net().load_param(str(made[0])):  # pnnx writes layers that ncnn lacks, and ends well
        made[0].unlink()
        raise SystemExit("pnnx left layers that ncnn does not have")


def ncnn_infer(file: Path) -> Infer:
    """One thread, float in 32 bits."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
    if net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin"))):
        raise SystemExit(f"ncnn does not load {file}")

    def infer(x: np.ndarray) -> np.ndarray:
        with net.create_extractor() as run:
            run.input("in0", ncnn.Mat(x[0]))
            return np.array(run.extract("out0")[1])

    return infer


def executorch_make(model: Path, images: np.ndarray, out: Path) -> None:
    """XNNPACK's quantizer in PyTorch's export as documented: static, weights by channel, lowered to XNNPACK."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    def write(program: torch.export.ExportedProgram, name: str) -> None:
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        (out / name).write_bytes(lowered.to_executorch().buffer)

    program = torch.export.load(model.with_suffix(".pt2"))
    quantizer = xnnpack_quantizer.XNNPACKQuantizer()
    quantizer.set_global(xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True))
    seen = [(torch.from_numpy(image)[None],) for image in images]  # numpy's own [None] has stride 0, which it refuses
    write(program, "float.pte")
    watched = prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for example in seen:
            watched(*example)
    write(torch.export.export(convert_pt2e(watched), seen[0]), "int8.pte")


def executorch_infer(file: Path) -> Infer:
    """One thread: its pool has a size of its own, which is set before a file is loaded."""
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(1)
    method = Runtime.get().load_program(file).load_method("forward")
    return lambda x: np.asarray(method.execute([torch.from_numpy(x[0])[None]])[0])  # a stride of its own


def litert_infer(file: Path) -> Infer:
    """LiteRT with XNNPACK, one thread; for its time alone: an int8 file is given float's bytes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def infer(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], x.reshape(source["shape"]).astype(source["dtype"], copy=False))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(result["index"]))

    return infer


MAKE = {"onnxruntime": onnxruntime_make, "openvino": openvino_make, "mnn": mnn_make, "ncnn": ncnn_make,
        "executorch": executorch_make}  # fmt: skip
INFER = {"onnxruntime": onnxruntime_infer, "openvino": openvino_infer, "mnn": mnn_infer, "ncnn": ncnn_infer,
         "executorch": executorch_infer, "litert": litert_infer}  # fmt: skip


def main() -> None:
    """Command line."""
    what, runtime, file, images = sys.argv[1], sys.argv[2], Path(sys.argv[3]), np.load(sys.argv[4])
    if what == "make":
        MAKE[runtime](file, images, Path(sys.argv[5]))
        return
    infer = INFER[runtime](file)
    if what == "run":
        np.save(sys.argv[5], np.concatenate([infer(image[None]).reshape(1, -1) for image in images]))
        return
    for _ in range(WARM_UP):
        infer(images[:1])
    print("ready", flush=True)
    for line in sys.stdin:
        spent = []
        for _ in range(int(line)):
            began = time.perf_counter()
            infer(images[:1])
            spent.append(1e3 * (time.perf_counter() - began))
        print(" ".join(f"{ms:.4f}" for ms in spent), flush=True)


if __name__ == "__main__":
    main()
