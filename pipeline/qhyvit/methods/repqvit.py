"""repqvit: channel-wise norm outputs made layer-wise by reparameterization, log sqrt2 softmax (ICCV 2023).

arXiv 2212.08254. Activations at the percentile, 99.9, 99.99 or 99.999 %, with the least squared error; norm outputs
are calibrated a channel, and the shift to one scale goes into gamma, beta and the next linear, exactly: in effect a
scale and zero point a channel. Here gamma and beta live in the linears, so that form, like the softmax codes, exists
in simulation only; ``expressible`` leaves both out.
"""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.methods.fqvit import log2_softmax
from qhyvit.methods.shared.channels import channel_wise
from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.patterns import norms
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import minmax_weights
from qhyvit.methods.shared.rest import assembled, best, observed
from qhyvit.options import setting
from qhyvit.plan import Codes


@dataclass(frozen=True)
class RepqvitOptions(Options):
    """Options of ``repqvit``."""

    fast_softmax: bool = setting(False, "large softmaxes of int8 ops; the paper has codes for a softmax's outputs")
    fast_gelu: bool = setting(False, "GELUs as SiLU; the paper keeps them")
    expressible: bool = setting(False, "only what TFLite can express")


def find(problem: Problem, options: RepqvitOptions) -> Solution:
    """Percentiles by squared error; channel-wise norm outputs; softmax codes with the least KL."""
    graph, bits = problem.graph, problem.bits
    weights, rest = minmax_weights(graph, bits), observed(problem, "best_percentile")["best_percentile"]
    if options.expressible:
        return Solution(graph, assembled(problem, rest, {}, weights))
    channels = channel_wise(problem, list(dict.fromkeys(n.output for n in norms(graph))))
    logs = {**channels, **log2_softmax(graph, bits, Codes.LOG_SQRT2)}
    tries = [
        (what, assembled(problem, rest, own, weights)) for what, own in (("uniform softmax", channels), ("log", logs))
    ]
    return Solution(graph, best(problem, tries))


METHOD = Method("repqvit", "channel-wise norm outputs, log softmax", find, RepqvitOptions)
