"""Differentiation through the stored graph of every step."""

from typing import ClassVar

from revdeq._iterate import iterate
from revdeq._residual import Stopping
from revdeq.adjoint.base import Adjoint, Attached, evaluations_in_steps, final_leaves
from revdeq.function import Function
from revdeq.solver.base import Iteration


class UnrolledAdjoint(Adjoint):
    """Autograd through all steps: the gradient of the N-step map, with memory that grows with N.

    Works with every solver, under torch.func transforms, and for higher derivatives. It is the plain alternative
    against which the others are compared. As everywhere in autograd, a sample that turned NaN makes the gradients of
    what the samples share NaN, whether or not the loss depends on it.
    """

    saves: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "UnrolledAdjoint()"

    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate with the graph recorded; see `Adjoint.run`."""
        outcome = iterate(f, solver, f.z0, stopping)
        coupled = solver.coupled(outcome.state)
        return Attached(
            final_leaves(solver.estimate(outcome.state), outcome, f),
            None if coupled is None else final_leaves(coupled, outcome, f),
            outcome._replace(state=None),
            None,
            f.extras.collected(evaluations_in_steps(outcome, solver)),
            tuple(f.border.narrow(leaves) for leaves in outcome.saved),
        )
