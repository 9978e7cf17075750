"""An op that a target lacks in int8 as a table of its 256 results: CAST, ADD of 128, GATHER.

The table is what the op's own integer kernel gives for every code, so that nothing else changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph.ir import Node, Quantization
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Kernel, Quants


def table_of(node: Node, read: Quantization, write: Quantization) -> NDArray[np.int8]:
    """Codes that an elementwise op of one operand gives for codes -128 to 127, int8 [256]."""
    integer = spec(node.op).integer
    assert integer is not None
    (codes,) = integer([np.arange(-128, 128)[None]], Quants((read,), (write,)), node.attrs, Kernel.REFERENCE)
    found: NDArray[np.int8] = codes[0].astype(np.int8)
    return found
