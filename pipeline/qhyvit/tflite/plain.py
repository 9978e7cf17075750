"""An interpreter that computes op by op with TFLite's own kernels, and keeps every tensor to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plain_run(data: bytes, shape: Sequence[int] | None = None) -> Any:
    """The interpreter behind one run on zeros; ``shape``: of the input, None for the file's own.

    Raises:
        RuntimeError, ValueError: the file holds an op that the interpreter does not know, or does not run.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data, num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    if shape is not None:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], list(shape))
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter
