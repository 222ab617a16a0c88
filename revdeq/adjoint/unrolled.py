"""Differentiation through the stored graph of every step."""

from typing import ClassVar

from revdeq._iterate import iterate
from revdeq._residual import Stopping
from revdeq.adjoint.base import (
    Adjoint,
    Attached,
    OnHealth,
    evaluations_in_steps,
    final_leaves,
    reporting,
    validated_on_health,
)
from revdeq.function import Function
from revdeq.solver.base import Iteration


class UnrolledAdjoint(Adjoint):
    """Autograd through all steps: the gradient of the N-step map, with memory that grows with N.

    Works with every solver, under torch.func transforms, and for higher derivatives. It is the plain alternative
    against which the others are compared. As everywhere in autograd, a sample that turned NaN makes the gradients of
    what the samples share NaN, whether or not the loss depends on it.

    Args:
        on_health: called at the beginning of every backward pass through z1 or y1 with a `Health` that counts them.

    Raises:
        TypeError: on_health is neither callable nor None.
    """

    saves: ClassVar[bool] = True

    def __init__(self, *, on_health: OnHealth | None = None) -> None:
        self.on_health = validated_on_health(on_health)

    def __repr__(self) -> str:
        return "UnrolledAdjoint()"

    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate with the graph recorded; see `Adjoint.run`."""
        outcome = iterate(f, solver, f.z0, stopping)
        coupled = solver.coupled(outcome.state)
        z1 = final_leaves(solver.estimate(outcome.state), outcome, f)
        y1 = None if coupled is None else final_leaves(coupled, outcome, f)
        return Attached(
            z1,
            y1,
            outcome._replace(state=None),
            reporting((*z1, *(y1 or ())), self.on_health),
            f.extras.collected(evaluations_in_steps(outcome, solver)),
            tuple(f.border.narrow(leaves) for leaves in outcome.saved),
        )
