"""What a target is: a runtime or a board, what it can compute, what that costs, and how a file for it is proven."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from qhyvit.errors import InputError
from qhyvit.latency.fit import load
from qhyvit.latency.profile import LatencyProfile, Sizes, default_profile
from qhyvit.ops.shared.spec import Kernel
from qhyvit.targets.shared.rules import Rules

INTEGER, CPU = "integer", "cpu"  # what a bundle says of its file: no float at all, or float where that is faster

# A processor without vector units gains by no form that only fills them better
PLAIN = Sizes(lanes=1, channels=1, columns=10**9, few_rows=0, softmax_elements=10**9)


@dataclass(frozen=True)
class Target:
    """One runtime or board.

    Args:
        name: as ``--target`` takes it.
        summary: what it is.
        proof: in words, what shows that a file works there.
        processor: whose times decide: a packaged latency profile, or the path of one, or of a bench file; "": the
            default profile.
        times: those themselves, in the place of a processor's.
        sizes: from which sizes on one form of an op is faster there; None: as on the processor.
        floats: nodes may compute in float where that is faster.
        int16: softmaxes may write int16.
        islands: norms may compute in int16.
        int4: it has a kernel for weights of four bits beside int8 activations.
        symmetric: activations have zero point 0 wherever no kernel prescribes another.
        fast_gelu: GELU as SiLU, which is two ops, takes less time than a kernel of its own.
        tables: ops that it lacks in int8, which a table of 256 codes computes.
        lacks: ops that a file must not hold.
        kernels: whose arithmetic proves it beside that of the machine here; None: no other.
        longest_stride: of a convolution; None: any.
        longest_mean: values of a mean over last axes, which has to read [1, 1, R, C]; None: any, of any shape.
        longest_product: products that a matrix product adds up for one result; None: any number.
        largest_transpose: elements of a map whose patches are put back by one TRANSPOSE; None: any number.
        accelerators: names of Vela's configurations, the default first; empty: no compiler follows.
        accelerator: the one that is meant; ``system`` and ``memory``: names of its surroundings in Vela's
            ``vela.ini``; of memories the next where a network does not fit.
        rules: what its compiler takes, where that can be read and the compiler cannot be run here; None: no rules.
        needs: (module, extra of this package that brings it) of what proves a file.
    """

    name: str
    summary: str
    proof: str
    processor: str = ""
    times: LatencyProfile | None = None
    sizes: Sizes | None = None
    floats: bool = True
    int16: bool = True
    islands: bool = True
    int4: bool = True
    symmetric: bool = False
    fast_gelu: bool = True
    tables: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    kernels: Kernel | None = None
    longest_stride: int | None = None
    longest_mean: int | None = None
    longest_product: int | None = None
    largest_transpose: int | None = None
    accelerators: tuple[str, ...] = ()
    accelerator: str = ""
    system: str = ""
    memory: tuple[str, ...] = ()
    rules: Rules | None = None
    needs: tuple[tuple[str, str], ...] = ()

    @cached_property
    def latency(self) -> LatencyProfile:
        """Times of its kernels, and from which sizes on a form of an op pays.

        Raises:
            InputError: the file of a board's times is none.
        """
        found = self.times or (load(Path(self.processor)) if self.processor else default_profile())
        return replace(found, sizes=self.sizes) if self.sizes else found

    def check_tools(self) -> None:
        """Refuse to begin what could not be proven.

        Raises:
            InputError: a package is missing; with the command that installs it.
        """
        for module, extra in self.needs:
            if find_spec(module.partition(".")[0]) is None:
                hint = f"pip install 'qhyvit[{extra}]'"
                raise InputError(f"--target {self.called} needs {module}, which is missing; {hint}")

    @property
    def needs_arena(self) -> bool:
        """Whether it is TensorFlow Lite Micro, whose tensors lie in an arena of a size that has to be known."""
        return self.kernels is Kernel.TFLM

    @property
    def called(self) -> str:
        """The name of the accelerator that is meant, else the target's."""
        return self.accelerator or self.name

    @property
    def profile(self) -> str:
        """What a bundle calls its file: ``integer`` or ``cpu``."""
        return CPU if self.floats else INTEGER
