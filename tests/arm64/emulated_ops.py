"""Runs on the emulated processor: the codes that single ops give. numpy and LiteRT alone.

Usage: emulated_ops.py FOLDER, which holds N.tflite and N.npz each with the operands to feed, arr_0 [B, *shape], ...;
the results become N.out.npz.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main():
    """Run every file, image by image."""
    folder = Path(sys.argv[1])
    for path in sorted(folder.glob("*.tflite")):
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        entries, ends = interpreter.get_input_details(), interpreter.get_output_details()
        with np.load(path.with_suffix(".npz")) as stored:
            feeds = [stored[name] for name in stored.files]
        rows = []
        for i in range(len(feeds[0])):
            for entry, x in zip(entries, feeds, strict=True):
                interpreter.set_tensor(entry["index"], x[i])
            interpreter.invoke()
            rows.append([np.array(interpreter.get_tensor(end["index"])) for end in ends])
        np.savez(path.with_suffix(".out.npz"), *(np.stack(column) for column in zip(*rows, strict=True)))


main()
