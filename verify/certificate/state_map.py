"""A traced function in balls, with its state as one flat list, and the tapes of its program that hold where it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.kernel.code import Run
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.numbers import OtherBranch
from verify.certificate.recorder import Recorder
from verify.certificate.settings import Progress, silent
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Traced


class StateMap:
    """f and torch's backward of it at a working precision.

    Args:
        traced: the recorded function.
        recorder: of its program.
        bits: working precision of the balls.
        progress: called with a few words now and then.

    Attributes:
        machine: runs the program at the values of `traced`.
        size: number of components of the state.
        start: the state at which f was recorded, float64, flat.
    """

    def __init__(self, traced: Traced, recorder: Recorder, bits: int, progress: Progress = silent) -> None:
        self.traced, self.recorder, self.bits, self.progress = traced, recorder, bits, progress
        arrays = traced.arrays()
        self.start: NDArray[np.float64] = np.concatenate([arrays[name].ravel() for name in traced.state])
        self.size = self.start.size
        values = {
            name: [arb(value) for value in arrays[name].ravel().tolist()]
            for name in recorder.code.inputs
            if name not in ("z", "cotangent")
        }
        with flint_precision(bits):
            self.machine = Machine(recorder.code, values)

    def run(self, kind: str, z: list[arb]) -> Run:
        """F ("f") or torch's backward ("torch") at a state, by a tape that holds there, recorded if there is none.

        Raises:
            Undecided: a comparison is.
        """
        with flint_precision(self.bits):
            for name in self.recorder.kinds.get(kind, ()):
                try:
                    return self.machine.run(name, z)
                except OtherBranch:
                    continue
        name = self.recorder.record(kind, self.bits, z, self.machine.values)
        with flint_precision(self.bits):
            try:
                return self.machine.run(name, z)
            except OtherBranch as other:
                raise Undecided(str(other)) from other

    def value(self, z: list[arb]) -> list[arb]:
        """f(z)."""
        return self.run("f", z).output()

    def point(self, z: NDArray[np.float64]) -> list[arb]:
        """Float64 numbers as exact balls."""
        return [arb(value) for value in z.ravel().tolist()]


def first_clause(undecided: BaseException) -> str:
    """What could not be decided, without the advice that follows it."""
    return str(undecided).partition(":")[0]


def box(center: Iterable[arb], radius: arb) -> list[arb]:
    """Balls of one radius round exact midpoints."""
    return [arb(point, radius) for point in center]


def all_finite(balls: Iterable[arb]) -> bool:
    """Whether every ball is finite."""
    return all(ball.is_finite() for ball in balls)
