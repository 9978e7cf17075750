"""Runs on the emulated processor: output codes of a model, or the codes of all its tensors. numpy and LiteRT alone.

Usage: emulated.py MODEL IMAGES.npy OUT.npz xnnpack|reference|tensors
"""

import json
import platform
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

WAYS = {
    "xnnpack": {},
    "reference": {"experimental_op_resolver_type": OpResolverType.BUILTIN_REF},
    "tensors": {"experimental_preserve_all_tensors": True, "experimental_disable_delegate_node_fusion": True},
}


def main():
    """Run all images, store what came out, say where it ran."""
    model, images, out, way = sys.argv[1:]
    interpreter = Interpreter(model_path=model, num_threads=1, **WAYS[way])
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found, outputs = {}, []
    for number, image in enumerate(np.load(images)):
        interpreter.set_tensor(entry, image[None])
        interpreter.invoke()
        outputs.append(np.array(interpreter.get_tensor(end)).ravel())
        for d in interpreter.get_tensor_details() if way == "tensors" else ():
            if d["name"]:
                try:
                    found[f"{number}|{d['name']}"] = np.array(interpreter.get_tensor(d["index"]))
                except ValueError:
                    continue
    np.savez(out, **{str(i): a for i, a in enumerate(found.values())}, names=np.array(list(found)), outputs=outputs)
    partitions = sum(d["op_name"] == "DELEGATE" for d in interpreter._get_ops_details())
    print(json.dumps({"machine": platform.machine(), "partitions": partitions}))


main()
