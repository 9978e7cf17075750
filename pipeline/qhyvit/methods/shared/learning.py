"""Learned scales: they follow the gradient of the distance to the float outputs itself.

LSQ (arXiv 1902.08153) on the calibration images, without labels, for scales and zero points of activations. What the
search decides tensor by tensor is here adjusted jointly, a few steps from where it ended. Weights and biases stay:
learned, they fit the calibration images and no others.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from qhyvit import affine
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.lowering.contracts import groups
from qhyvit.methods.shared.output_ranges import MEASURED
from qhyvit.methods.shared.pixels import PIXELS
from qhyvit.methods.shared.problem import AT_ONCE, Problem, at_once
from qhyvit.methods.shared.range_search import UNCLIPPED
from qhyvit.methods.shared.ranges import finish
from qhyvit.plan import Scheme, TensorQuant
from qhyvit.sim.fakequant import fake_quantize, learned_uniform, rounds
from qhyvit.sim.run import Executor, Hook
from qhyvit.store import Store

SCALE_RATE, ZERO_RATE = 3e-2, 0.075  # of the logarithm of a scale; in codes
KEEP_SECONDS = 15.0  # between two states that are kept: no more is lost when the run is stopped
PIECE = "learning"
STAY = (PIXELS, UNCLIPPED, MEASURED)  # observers whose ranges are right as they are


class _Quantizers:
    """A learned scale and zero point for every group that is free; all of them in two vectors."""

    def __init__(self, graph: Graph, quants: Mapping[str, TensorQuant]) -> None:
        self.quants = quants
        self.row: dict[str, int] = {}  # of a tensor's name in the vectors
        scales: list[float] = []
        zeros: list[float] = []
        free: list[bool] = []
        for group in groups(graph):
            names = [graph.tensors[t].name for t in group.members]
            quant = quants[names[0]]
            stays = group.fixed is not None or group.floor is not None or quant.choice.observer in STAY
            if stays or all(graph.tensors[t].is_constant for t in group.members):
                continue
            self.row |= dict.fromkeys(names, len(scales))
            scales.append(float(np.log(quant.scale[0])))
            zeros.append(float(quant.zero_point[0]))
            pinned = group.symmetric or group.low_at_zero
            free.append(not pinned and quant.choice.scheme is Scheme.ASYMMETRIC)
        self.log_scale = torch.tensor(scales, dtype=torch.float32, requires_grad=True)
        self.zero = torch.tensor(zeros, dtype=torch.float32, requires_grad=True)
        self.free = free

    @property
    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What is learned: logarithms of scales, zero points."""
        return self.log_scale, self.zero

    def hook(self) -> Hook:
        """Rounds by the vectors as they are now; for one pass."""
        scales = torch.split(self.log_scale.exp(), 1)
        # a zero point that its readers or the scheme fix gets no gradient
        zeros = [z if free else z.detach() for z, free in zip(torch.split(self.zero, 1), self.free, strict=True)]

        def rounded(tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
            i, quant = self.row.get(tensor.name), self.quants.get(tensor.name)
            if i is None or quant is None:
                return x if quant is None else fake_quantize(x, quant)
            return learned_uniform(x, scales[i], zeros[i], *quant.limits) if rounds(node) else x

        return rounded

    def found(self) -> dict[str, TensorQuant]:
        """Quantizations with what was learned."""
        result = dict(self.quants)
        scales, zeros = self.log_scale.detach().exp().numpy(), self.zero.detach().numpy()
        for name, i in self.row.items():
            scale = max(float(scales[i]), affine.SCALE_FLOOR)
            zero = int(np.clip(np.rint(zeros[i]), *self.quants[name].limits))
            result[name] = replace(result[name], scale=(scale,), zero_point=(zero,))
        return result


class _Descent:
    """Steps of Adam with rates that fall to 0; its whole state can be packed, so that a stopped run goes on exactly."""

    def __init__(self, vectors: tuple[torch.Tensor, torch.Tensor], steps: int) -> None:
        self.vectors, self.done = vectors, 0
        rates = [{"params": [v], "lr": rate} for v, rate in zip(vectors, (SCALE_RATE, ZERO_RATE), strict=True)]
        self.optimizer = torch.optim.Adam(rates, betas=(0.9, 0.99))
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    def step(self, gradients: Iterable[tuple[torch.Tensor | None, ...]]) -> None:
        """Move against the sum of the gradients, each of both vectors."""
        self.optimizer.zero_grad()
        for parts in gradients:
            for vector, part in zip(self.vectors, parts, strict=True):
                if part is not None:
                    vector.grad = part if vector.grad is None else vector.grad + part
        self.optimizer.step()
        self.schedule.step()
        self.done += 1

    def pack(self) -> np.ndarray:
        """Everything that the next step depends on, as bytes."""
        stream = io.BytesIO()
        vectors = [v.detach() for v in self.vectors]
        torch.save((self.done, vectors, self.optimizer.state_dict(), self.schedule.state_dict()), stream)
        return np.frombuffer(stream.getvalue(), np.uint8)

    def unpack(self, packed: np.ndarray) -> None:
        """Go on behind the step after which :meth:`pack` was called."""
        self.done, vectors, optimizer, schedule = torch.load(io.BytesIO(packed.tobytes()), weights_only=True)
        with torch.no_grad():
            for mine, kept in zip(self.vectors, vectors, strict=True):
                mine.copy_(kept)
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state_dict(schedule)


@dataclass
class _Keeper:
    """Keeps the state of a descent every now and then."""

    store: Store
    last: float = field(default_factory=time.monotonic)

    def resume(self, descent: _Descent) -> None:
        """Take up what a stopped run kept."""
        piece = self.store.get(PIECE)
        if piece is not None:
            descent.unpack(piece.arrays["state"])

    def keep(self, descent: _Descent) -> None:
        """Keep the state if the last one is old."""
        if time.monotonic() - self.last >= KEEP_SECONDS:
            self.store.put(PIECE, None, {"state": descent.pack()})
            self.last = time.monotonic()


def learn(problem: Problem, graph: Graph, quants: Mapping[str, TensorQuant], steps: int) -> dict[str, TensorQuant]:
    """Quantizations with learned scales and zero points, after ``steps`` steps of ``problem.together`` images.

    Args:
        graph: with its weights on their grids already; ``problem.graph`` is the float one.
    """
    executor, learned = Executor(constants_on_grid_of(graph, quants)), _Quantizers(graph, quants)
    descent, keeper = _Descent(learned.vectors, steps), _Keeper(problem.store)
    keeper.resume(descent)

    def gradients(now: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        outputs = executor.rows(problem.images[now], learned.hook())
        distance = problem.lowered.distance(problem.targets[now], outputs).sum() / problem.together
        return torch.autograd.grad(distance, learned.vectors, allow_unused=True)

    draws = _draws(len(problem.images), problem.together, steps, problem.seed)
    for now in itertools.islice(draws, descent.done, None):
        problem.progress("learn scales", descent.done / steps)
        descent.step(at_once(gradients, torch.tensor_split(now, min(AT_ONCE, len(now)))))
        keeper.keep(descent)
    return finish(graph, learned.found())


def _draws(count: int, batch: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of ``steps`` batches; every image once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        yield order[:batch]
        order = order[batch:]
