"""What each block and each tensor costs, on a few images."""

from __future__ import annotations

from collections import Counter

import torch

from qhyvit.bundle import check_judged
from qhyvit.latency.fit import load
from qhyvit.methods.shared.problem import layout_of, outputs_of
from qhyvit.progress import Progress
from qhyvit.report.chain import Neighbours, block_of, chain
from qhyvit.report.changes import changes
from qhyvit.report.cost import Costs, rounded_tensors
from qhyvit.report.facts import BlockFacts, Cost, TensorFacts, rounded
from qhyvit.report.tensors import tensor_facts
from qhyvit.stages.solved import Solved
from qhyvit.stages.verification import JUDGED
from qhyvit.tasks import task
from qhyvit.tflite.read import read
from qhyvit.threads import cores, shared_out
from qhyvit.work import FLOAT, LATENCY, VERIFY, Work

COST_IMAGES = 8  # that each tensor's cost is measured on


def cost_facts(found: Solved, images: torch.Tensor, work: Work, command: str, progress: Progress) -> Cost:
    """What quantization costs on ``images`` [N, H, W, C], as the model takes them: by block and tensor.

    Args:
        command: that made the bundle; changes that would pay are given as commands like it.

    Raises:
        InputError: a file of the work directory is missing, damaged, or another one than was verified.
    """
    images, verified = images[:COST_IMAGES], work.json(VERIFY)
    check_judged(work.folder / VERIFY, verified, {n: work.hash(n) for n in JUDGED if n in verified["files"]})
    float_graph = read(work.read(FLOAT))
    reference = outputs_of(float_graph, images)
    what, layout = task(found.plan.task), layout_of(float_graph)
    costs = Costs(found, images, reference, what.measure(layout, reference))
    blocks = chain(found.folded)
    labels = block_of(found.folded, blocks)
    in_file = verified["sqnr_db"]
    items = rounded_tensors(found.folded, found.plan.tensors)

    def facts(_: None, i: int) -> TensorFacts:
        return tensor_facts(costs, items[i], labels[items[i].tensor.id], in_file, found.plan.bridge)

    # small ops, which one thread computes nearly as fast as all do
    tensors = shared_out(facts, len(items), [None] * cores(), "tensors", progress, lambda: torch.set_num_threads(1))
    kl_up_to = costs.up_to(blocks, progress)
    progress("changes", 0.0)
    latency_profile = work.load(LATENCY, lambda _: load(work.folder / LATENCY))
    outputs = costs.everything(found.plan.tensors)
    total = costs.of(outputs)
    return Cost(
        len(costs.images), rounded(total), what.alike(reference.numpy(), outputs.numpy(), layout).text,
        tuple(_block(costs, found, b, up_to) for b, up_to in zip(blocks, kl_up_to, strict=True)),
        tuple(tensors), changes(found.plan, command, costs, total, latency_profile),
    )  # fmt: skip


def _block(costs: Costs, found: Solved, block: Neighbours, up_to: float) -> BlockFacts:
    nodes = block.nodes(found.folded)
    names = [found.folded.tensors[t].name for node in nodes for t in node.outputs]
    bridge = tuple(f"{n}: {found.plan.bridge[n]}" for n in names if n in found.plan.bridge)
    ops = dict(sorted(Counter(node.op for node in nodes).items()))
    return BlockFacts(block.label, ops, bridge, rounded(max(costs.block_alone(block), 0.0)), rounded(up_to))
