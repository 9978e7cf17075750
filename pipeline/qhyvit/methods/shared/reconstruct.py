"""Closed-form reconstruction: weights and biases that undo the error of everything before them, rounded with care.

Float and quantized graph run in lockstep over all calibration images. At each op with weights the quantized inputs
X and the float outputs Y are at hand; the weights that bring X nearest to Y solve a ridge regression around the float
ones, W + (Y - W X) X^T (X X^T + lambda)^-1, and the bias takes the mean. The result is rounded column by column, each
column's error handed on to those that follow (GPTQ, arXiv 2210.17323), and the op's output goes on quantized.

Positions count as much as the outputs feel an error there (:func:`qhyvit.methods.shared.hessian.position_weights`): a
token whose values are massive, and which a norm then divides by just that, must not outvote all others.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from qhyvit import affine
from qhyvit.graph import edit
from qhyvit.graph.ir import Node
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.methods.shared.problem import Batch, Problem, at_once
from qhyvit.methods.shared.ranges import bias_floor, weight_quant
from qhyvit.methods.shared.weight_rounding import search_weight
from qhyvit.ops import spec
from qhyvit.ops.shared.layer import Layer, layer_of
from qhyvit.plan import TensorQuant, quants_from_json, quants_to_json
from qhyvit.sim.fakequant import fake_quantize
from qhyvit.sim.run import Executor, walk

DAMP = 0.01  # of the mean variance, added for the rounding
NOISE = 1e-5  # of the mean square: what float32 sums leave uncertain in a covariance


@dataclass
class Gram:
    """Sums over samples for G independent groups of channels: inputs [G, K], residuals of O outputs [G, O].

    ``xx`` [G, K, K], ``rx`` [G, O, K], ``x`` [G, K], ``r`` [G, O]; float64. Each sample counts by its weight, 1 in the
    mean; ``squares``: the sum of the squared weights.
    """

    xx: torch.Tensor
    rx: torch.Tensor
    x: torch.Tensor
    r: torch.Tensor
    samples: int
    squares: float

    @property
    def effective(self) -> float:
        """Number of samples of equal weight that would say as much (Kish)."""
        return self.samples**2 / max(self.squares, 1e-30)

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Covariance of the inputs [G, K, K], and of residuals with inputs [G, O, K]."""
        n = max(self.samples, 1)
        mx, mr = self.x / n, self.r / n
        return self.xx / n - mx[:, :, None] * mx[:, None, :], self.rx / n - mr[:, :, None] * mx[:, None, :]

    def level(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean variance of the inputs [G], and a diagonal that makes their covariance positive definite [G]."""
        raw = self.xx.diagonal(dim1=1, dim2=2).mean(dim=1) / max(self.samples, 1)
        variance = self.centred()[0].diagonal(dim1=1, dim2=2).mean(dim=1)
        return variance.clamp_min(0.0), NOISE * raw + 1e-12


def _gram(layer: Layer, x: torch.Tensor, residual: torch.Tensor, weights: torch.Tensor | None) -> Gram:
    """Sums over all images, one image at a time; ``residual`` [B, *file shape], ``weights`` [B, samples of each]."""
    parts: list[Gram] = []
    for i, (image, r) in enumerate(zip(x, residual, strict=True)):
        rows, out = layer.patches(image[None]), layer.outputs(r)
        weight = torch.ones(rows.shape[1]) if weights is None else weights[i]
        weighed, wanted = rows * weight[:, None], out * weight[:, None]
        parts.append(Gram(
            (weighed.transpose(1, 2) @ rows).double(), (wanted.transpose(1, 2) @ rows).double(),
            weighed.sum(1).double(), wanted.sum(1).double(), rows.shape[1], float((weight * weight).sum()),
        ))  # fmt: skip
        if len(parts) > 1:
            parts = [_both(*parts)]
    return parts[0]


def _both(a: Gram, b: Gram) -> Gram:
    return Gram(a.xx + b.xx, a.rx + b.rx, a.x + b.x, a.r + b.r, a.samples + b.samples, a.squares + b.squares)


def ridge(w: torch.Tensor, gram: Gram, strength: float) -> torch.Tensor:
    """Weights [G, O, K] that bring the inputs nearest to the float outputs, held near ``w`` by ``strength``."""
    xx, rx = gram.centred()
    level, least = gram.level()
    # few samples say little: the pull towards the float weights grows with K / samples
    pull = strength * level * (1 + 50.0 * xx.shape[1] / gram.effective) + least
    system = xx + torch.diag_embed(pull[:, None].expand(-1, xx.shape[1]))
    found: torch.Tensor = w + torch.linalg.solve(system, rx.transpose(1, 2)).transpose(1, 2)
    return found


def round_with_care(w: torch.Tensor, scale: torch.Tensor, gram: Gram, limit: int) -> torch.Tensor:
    """GPTQ: values on the grid [G, O, K] of ``scale`` [G, O, 1] with a small error in the inputs' covariance.

    Columns go in order of falling variance; each one's error is spread over those not yet rounded.
    """
    xx, _ = gram.centred()
    level, least = gram.level()
    k = xx.shape[1]
    system = xx + torch.diag_embed((DAMP * level + least)[:, None].expand(-1, k))
    order = system.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)  # [G, K]
    system = system.gather(1, order[:, :, None].expand(-1, -1, k)).gather(2, order[:, None, :].expand(-1, k, -1))
    index = order[:, None, :].expand(-1, w.shape[1], -1)
    rest = w.gather(2, index).clone()
    factor = cholesky(torch.cholesky_inverse(cholesky(system))).transpose(1, 2)  # upper
    done = torch.empty_like(rest)
    for j in range(k):
        column = rest[:, :, j : j + 1]
        done[:, :, j : j + 1] = torch.clamp(torch.round(column / scale), -limit, limit) * scale
        error = (column - done[:, :, j : j + 1]) / factor[:, None, j : j + 1, j]
        rest[:, :, j + 1 :] -= error * factor[:, None, j, j + 1 :]
    return torch.empty_like(w).scatter_(2, index, done)


def cholesky(system: torch.Tensor) -> torch.Tensor:
    """Lower factor of [G, K, K]; what rounding leaves indefinite gets a larger diagonal, ten times at a time."""
    level = system.diagonal(dim1=1, dim2=2).abs().mean(dim=1) + 1e-30
    share = 1e-8
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(system)
    while bool(failed.any()) and share < 10:
        damped = system + torch.diag_embed((share * level)[:, None].expand(-1, system.shape[1]))
        factor, failed = torch.linalg.cholesky_ex(damped)
        share *= 10
    return factor


@dataclass(frozen=True)
class ClosedForm:
    """What is solved.

    Args:
        ridge: strength of the pull towards the float weights; 0: weights stay.
        rounding: GPTQ.
        bias: biases take the mean of what is left.
        scales: weight scales are searched again.
    """

    ridge: float = 1.0
    rounding: bool = True
    bias: bool = True
    scales: bool = True


@dataclass(frozen=True)
class _Part:
    """A batch, and what the float (``exact``) and the quantized network hold of it, by tensor id."""

    batch: Batch
    exact: dict[int, torch.Tensor]
    rough: dict[int, torch.Tensor]


class Lockstep:
    """Float and quantized graph side by side over all images, node by node."""

    def __init__(
        self, problem: Problem, quants: Mapping[str, TensorQuant], options: ClosedForm, pieces: str,
        positions: Mapping[int, torch.Tensor],
    ) -> None:  # fmt: skip
        self.pieces, self.positions = pieces, positions
        self.problem, self.graph, self.quants, self.options = problem, problem.graph, dict(quants), options
        self.float = Executor(self.graph, exact=True)
        self.quantized = Executor(constants_on_grid_of(self.graph, quants))
        self.constants: dict[int, np.ndarray] = {}

    def run(self) -> None:
        """Go through the graph once; ``constants`` and ``quants`` then hold what was found."""
        graph = self.graph
        parts = [*self.problem.each(self._fed)]
        states = (values for part in parts for values in (part.exact, part.rough))
        for index, node in enumerate(walk(graph, *states)):
            self.problem.progress("reconstruct", index / len(graph.nodes))
            layer = layer_of(graph, node)
            if layer is not None and not self._kept(index, layer):
                self._solve(layer, parts)
                self._keep(index, layer)
            for _ in at_once(partial(self._step, node), parts):
                pass

    def _fed(self, batch: Batch) -> _Part:
        source, x = self.graph.inputs[0], batch.images.unsqueeze(1)
        return _Part(batch, {source: x}, {source: self._rounded(source, x)})

    def _step(self, node: Node, part: _Part) -> None:
        """What the node makes of both networks' values."""
        with torch.no_grad():  # which counts in one thread
            found = self.float.outputs(node, part.exact), self.quantized.outputs(node, part.rough)
            for t, exact, rough in zip(node.outputs, *found, strict=True):
                part.exact[t], part.rough[t] = exact, self._rounded(t, rough)

    def _kept(self, index: int, layer: Layer) -> bool:
        """Take what an earlier run solved here, if it did."""
        piece = self.problem.store.get(f"{self.pieces}{index}")
        if piece is None:
            return False
        self.quants.update(quants_from_json(piece.facts))
        self._store(layer.weight, piece.arrays["weight"])
        self._store(layer.bias, piece.arrays["bias"])
        return True

    def _keep(self, index: int, layer: Layer) -> None:
        name = self.graph.tensors[layer.weight].name
        arrays = {"weight": self.constants[layer.weight], "bias": self.constants[layer.bias]}
        self.problem.store.put(f"{self.pieces}{index}", quants_to_json({name: self.quants[name]}), arrays)

    def _rounded(self, t: int, y: torch.Tensor) -> torch.Tensor:
        quant = self.quants.get(self.graph.tensors[t].name)
        return y if quant is None else fake_quantize(y, quant)

    def _linear(self, executor: Executor, node: Node, values: dict[int, torch.Tensor]) -> torch.Tensor:
        """The op without its fused activation."""
        operands = [executor.operand(node, i, values) for i in range(len(node.inputs))]
        y = spec(node.op).forward(operands, node.attrs)
        assert isinstance(y, torch.Tensor)
        return y

    def _solve(self, layer: Layer, parts: Sequence[_Part]) -> None:
        """New weights and bias of one op."""
        graph = self.graph
        w, b = graph.constant(layer.weight), graph.constant(layer.bias).astype(np.float64)
        gram = functools.reduce(_both, at_once(partial(self._gram, layer), parts))
        rows = layer.rows(w)
        better = ridge(rows, gram, self.options.ridge) if self.options.ridge else rows
        quant, fixed = self._round(layer, better, gram)
        # the bias takes the mean of what is left: E[Y] - E[W_q X]
        n = max(gram.samples, 1)
        mean = gram.r / n - ((fixed - rows) * (gram.x / n)[:, None, :]).sum(dim=2)
        new_bias = b + mean.reshape(-1).numpy() if self.options.bias else b
        self.quants[graph.tensors[layer.weight].name] = quant
        self._store(layer.weight, layer.weight_of(fixed))
        self._store(layer.bias, new_bias)

    def _gram(self, layer: Layer, part: _Part) -> Gram:
        """Sums of the quantized inputs, and of what the float weights still get wrong on them."""
        weights, first = self.positions.get(layer.out), part.batch.number * self.problem.batch
        with torch.no_grad():
            wanted, found = (self._linear(self.float, layer.node, values) for values in (part.exact, part.rough))
            own = None if weights is None else weights[first : first + len(found)]
            return _gram(layer, part.rough[layer.data], wanted - found, own)

    def _round(self, layer: Layer, w: torch.Tensor, gram: Gram) -> tuple[TensorQuant, torch.Tensor]:
        bits = self.problem.bits
        top = affine.grid(bits).qmax
        energy = gram.centred()[0].diagonal(dim1=1, dim2=2).clamp_min(0.0)[:, None, :].expand_as(w)
        scale = search_weight(layer.weight_of(w), layer.axis, layer.weight_of(energy), bits)
        if not self.options.scales:
            scale = np.asarray(self.quants[self.graph.tensors[layer.weight].name].scale)
        steps = layer.per_channel(torch.from_numpy(scale))
        if self.options.rounding:
            fixed = round_with_care(w, steps, gram, top)
        else:
            fixed = torch.clamp(torch.round(w / steps), -top, top) * steps
        return weight_quant(scale, layer.axis, "reconstruct", bits), fixed

    def _store(self, t: int, data: np.ndarray) -> None:
        self.constants[t] = data.astype(np.float32)
        self.quantized.set_constant(t, self.constants[t])


def reconstruct(
    problem: Problem,
    quants: Mapping[str, TensorQuant],
    options: ClosedForm,
    pieces: str = "op",
    positions: Mapping[int, torch.Tensor] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, TensorQuant]]:
    """New constants by tensor name (weights on their grids, biases), and the quantizations with new weight scales.

    Args:
        pieces: what the store calls the solved ops.
        positions: what each position of each op's output counts, [images, positions] by tensor id; None: all alike.
    """
    lockstep = Lockstep(problem, quants, options, pieces, positions or {})
    with torch.no_grad():
        lockstep.run()
    changed = edit.with_constants(problem.graph, lockstep.constants)
    constants = {problem.graph.tensors[t].name: changed.constant(t) for t in lockstep.constants}
    return constants, bias_floor(changed, lockstep.quants)
