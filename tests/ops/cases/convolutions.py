"""Convolutions and depthwise ones."""

from __future__ import annotations

from _single_op import Case, act, case, const


def _convolutions() -> list[Case]:
    x, w, b = act(1, 8, 7, 6), const(5, 3, 3, 6), const(5)
    found = [
        case("CONV_2D", x, w, b, padding=p, stride_h=s, stride_w=s, fused_activation_function=f)
        for p, s, f in [("SAME", 1, "NONE"), ("SAME", 2, "RELU"), ("VALID", 1, "RELU6"), ("VALID", 2, "NONE")]
    ]
    found += [
        case("CONV_2D", x, const(4, 1, 1, 6), const(4), padding="VALID"),
        case("CONV_2D", x, const(4, 1, 1, 6), const(4), padding="SAME", stride_h=2, stride_w=1),
        case("CONV_2D", x, const(4, 3, 3, 3), const(4)),  # two groups
        case("CONV_2D", x, w, b, dilation_h_factor=2, dilation_w_factor=2),
        case("CONV_2D", act(1, 8, 7, 6), const(4, 2, 4, 6), const(4), fused_activation_function="RELU_N1_TO_1"),
    ]
    for m in (1, 3, 4, 6):
        found.append(case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6 * m), const(6 * m), depth_multiplier=m))
    for p, s, f in [("SAME", 2, "RELU6"), ("VALID", 2, "NONE"), ("VALID", 1, "RELU")]:
        options = {"padding": p, "stride_h": s, "stride_w": s, "fused_activation_function": f}
        found.append(case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6), const(6), **options))
    found.append(case("DEPTHWISE_CONV_2D", x, const(1, 1, 1, 6), const(6), padding="VALID"))
    found.append(case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6), const(6), dilation_h_factor=2, dilation_w_factor=2))
    found += [
        case("CONV_2D", x, w, b, padding="VALID", dilation_h_factor=3, dilation_w_factor=2),
        case("CONV_2D", x, const(6, 3, 3, 2), const(6), stride_h=2, stride_w=2),  # three groups
        case("CONV_2D", x, const(4, 3, 2, 3), const(4), padding="VALID", dilation_h_factor=2),
        case("CONV_2D", x, w, b, stride_h=2, stride_w=2, dilation_h_factor=2, dilation_w_factor=2),
        case(
            "DEPTHWISE_CONV_2D",
            x,
            const(1, 3, 3, 6),
            const(6),
            stride_h=2,
            stride_w=2,
            dilation_h_factor=2,
            dilation_w_factor=2,
        ),
        case("DEPTHWISE_CONV_2D", x, const(1, 3, 2, 12), const(12), depth_multiplier=2, dilation_h_factor=2),
        case("DEPTHWISE_CONV_2D", x, const(1, 2, 4, 12), const(12), depth_multiplier=2, padding="VALID", stride_w=2),
    ]
    return found


CASES = _convolutions()
