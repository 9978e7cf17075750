"""CAST: codes as whole numbers, which a GATHER behind them takes for positions in a table.

Float graphs have none: there only the types that such a table needs are known.
"""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.errors import GraphError
from qhyvit.ops.shared.spec import OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

INT32, INT8 = 2, 9  # of the schema's TensorType


@dataclass(frozen=True)
class CastAttrs:
    """Attributes of CastOptions."""

    in_data_type: int = INT8
    out_data_type: int = INT32

    def __post_init__(self) -> None:
        if (self.in_data_type, self.out_data_type) != (INT8, INT32):
            raise GraphError("CAST is supported from int8 to int32 alone")


OP = OpSpec(
    name="CAST",
    options="CastOptions",
    attrs=CastAttrs,
    infer_shape=same_shape,
    forward=unary(lambda x: x),
    delegate="XNNPACK converts no int8 to int32",
)
