"""Phantom gradients: the gradient of a few relaxed steps taken from the state that the solve returned."""

from typing import ClassVar

import torch

from revdeq._residual import Stopping
from revdeq._solution import Health
from revdeq._tree import Leaves
from revdeq.adjoint.base import Adjoint, Attached, OnHealth, validated_on_health
from revdeq.adjoint.fixed_point import run_for_fixed_point
from revdeq.adjoint.totals import Totals
from revdeq.arithmetic.floating import half_step
from revdeq.function import Function, Replay
from revdeq.function.linearisation import Linearisation, PartialLeaves
from revdeq.solver.base import Iteration, validated_beta
from revdeq.solver.parameters import validated_count


class PhantomAdjoint(Adjoint):
    """Differentiate the steps x_{i+1} = (1 - beta) x_i + beta f(x_i), i < steps, from the constant x_0 = z1.

    It is an approximation by design: as `steps` grows it tends to the implicit gradient where f contracts, and at a few
    steps it is a descent direction that costs a few evaluations and VJPs. The value returned stays z1; z0 gets no
    gradient, and the cotangents of z1 and y1 are added, since both stand for the fixed point.

    `PhantomAdjoint(steps=1, beta=1.0)` is Jacobian-free backpropagation: one VJP, the inverse of I - K taken as I.

    Args:
        steps: relaxed steps to differentiate, an int >= 1; this many evaluations and VJPs in backward.
        beta: relaxation parameter of these steps, 0 < beta < 2.
        on_health: called with the `Health` at the end of every backward pass, for loggers.

    Raises:
        TypeError: steps is not an int, beta is not a real number, or on_health is neither callable nor None.
        ValueError: one of them is outside the range given above.

    References:
        Geng, Zhang, Bai, Wang, Lin, On training implicit models, arXiv 2111.05177, equation (11), the unrolled form.
        Fung, Heaton, Li, McKenzie, Osher, Yin, JFB: Jacobian-free backpropagation for implicit networks,
        arXiv 2103.12803.
    """

    of_fixed_point: ClassVar[bool] = True

    def __init__(self, steps: int = 5, beta: float = 0.5, *, on_health: OnHealth | None = None) -> None:
        self.on_health = validated_on_health(on_health)
        self.steps = validated_count("steps", steps, example=5)
        self.beta = validated_beta(beta, below=2.0)

    def __repr__(self) -> str:
        return f"PhantomAdjoint(steps={self.steps}, beta={self.beta!r})"

    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate without a graph and attach the phantom gradient; see `Adjoint.run`."""
        return run_for_fixed_point(f, solver, stopping, self._pull_back, Health(), self.on_health)

    def _pull_back(self, replay: Replay, z1: Leaves, c: Leaves) -> PartialLeaves:
        taken: list[Linearisation] = []
        x = z1
        for _ in range(self.steps):
            taken.append(replay.linearise(x))
            with torch.no_grad():
                x = tuple(half_step(leaf, value, self.beta) for leaf, value in zip(x, taken[-1].value, strict=True))
        totals = Totals(len(replay.inputs))
        p = c
        for at_x in reversed(taken):
            with torch.no_grad():
                weighted = tuple(leaf.mul(self.beta) for leaf in p)
            to_x, inputs = at_x.pull_back(weighted)
            totals.add(inputs)
            with torch.no_grad():
                p = tuple(
                    leaf.mul(1.0 - self.beta) if part is None else leaf.mul(1.0 - self.beta).add_(part)
                    for leaf, part in zip(p, to_x, strict=True)
                )
        return totals.sums()
