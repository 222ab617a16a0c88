"""What every adjoint offers: run a solver and give its result a gradient."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, NoReturn, TypeAlias

import torch
from torch._C import _is_fwd_grad_enabled as is_fwd_grad_enabled  # pyright: ignore[reportPrivateUsage]
from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack
from torch.autograd import forward_ad

from revdeq._errors import GradientError
from revdeq._iterate import Outcome, Watch, iterate
from revdeq._narrowing import narrow
from revdeq._residual import Stopping, masked, per_sample
from revdeq._solution import Health, Result
from revdeq._tree import Leaves
from revdeq.function import Function, Replay
from revdeq.solver.base import Evaluate, Iteration


class Attached(NamedTuple):
    """Differentiable leaves of the final states, and the outcome of the loop that made them.

    Attributes:
        z1: leaves of the final state in z0's dtypes.
        y1: leaves of the coupled state, likewise; None where the solver has none.
        outcome: steps, results and residual; its `state` is None, so that nothing holds on to the states.
        health: what the backward pass will find out; None for adjoints that measure nothing there.
        aux: leaves of the auxiliary output of f.
        saved: leaves of the states of `Stopping.save_at`, in z0's dtypes.
    """

    z1: Leaves
    y1: Leaves | None
    outcome: Outcome
    health: Health | None
    aux: Leaves = ()
    saved: tuple[Leaves, ...] = ()


OnHealth: TypeAlias = Callable[[Health], object]
"""Is called with the `Health` in every backward pass, for loggers."""


class Adjoint(ABC):
    """A way to differentiate what a solver returns.

    Attributes:
        compiles: whether it can differentiate half steps that were compiled together with f.
        saves: whether it can differentiate the states of steps within a solve.
        of_fixed_point: whether its gradient is that of the fixed point, and knows nothing of steps.
    """

    compiles: ClassVar[bool] = False
    saves: ClassVar[bool] = False
    of_fixed_point: ClassVar[bool] = False

    @abstractmethod
    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate the solver on f and attach the gradient to its result.

        Args:
            f: the user's function, not yet evaluated.
            solver: the iteration.
            stopping: when it ends.

        Raises:
            TypeError: this adjoint cannot differentiate this solver; the sentence names one that can.
        """


def validated_on_health(on_health: object) -> OnHealth | None:
    """Return the callback.

    Raises:
        TypeError: it is neither callable nor None.
    """
    if on_health is not None and not callable(on_health):
        raise TypeError(f"on_health is a {type(on_health).__name__}; it must be callable as on_health(health).")
    return on_health


def reporting(outputs: Leaves, on_health: OnHealth | None) -> Health | None:
    """Return the health of a gradient that autograd takes by itself: it counts passes, and reports each as it begins.

    Args:
        outputs: what the solve returns.
        on_health: whom to tell; None for nobody, and no health.
    """
    trained = [leaf for leaf in outputs if leaf.requires_grad]
    if on_health is None:
        return None
    health = Health()

    def report(_: torch.Tensor) -> None:
        health.begin_pass()
        on_health(health)

    if trained:
        torch.autograd.graph.register_multi_grad_hook(trained, report, mode="any")
    return health


def final_leaves(leaves: Leaves, outcome: Outcome, f: Function) -> Leaves:
    """Return leaves of a final state as a solve returns them: copies in the dtypes of z0, NaN in samples that broke.

    Args:
        leaves: of the final state, in the state dtype.
        outcome: how the loop ended.
        f: the user's function.
    """
    # Copies: what a solve returns must not share memory with its states.
    final = tuple(
        leaf.clone() if leaf.dtype == s.dtype else narrow(leaf, s.dtype) for leaf, s in zip(leaves, f.z0, strict=True)
    )
    if outcome.residual is None:
        return final  # a fixed number of steps has no sample that went back to its start
    broken = broken_samples(outcome)
    return tuple(leaf.masked_fill(per_sample(broken, leaf), math.nan) for leaf in final)


def evaluations_in_steps(outcome: Outcome, solver: Iteration) -> int:
    """Return how many evaluations of f the steps took, the one that judges the last state apart.

    Args:
        outcome: how the loop ended.
        solver: the iteration.
    """
    return solver.evaluations_per_step * outcome.loops


def broken_samples(outcome: Outcome) -> torch.Tensor:
    """Return, per sample, whether the state or a value of f was not finite or left its range: a bool tensor."""
    results = outcome.sample_results
    return (results == Result.NONFINITE.code) | (results == Result.OUT_OF_RANGE.code)


def refuse_dependence(broken: torch.Tensor, cotangents: Sequence[torch.Tensor | None]) -> None:
    """Raise where a loss depends on samples that broke, whose gradient is not finite.

    Args:
        broken: bool tensor, one entry a sample, or 0-d.
        cotangents: of the final states; None for zero.

    Raises:
        GradientError: a cotangent of such a sample is not exactly zero.
    """
    present = tuple(c for c in cotangents if c is not None)
    if any(bool((c != 0).any()) for c in masked(broken, present)):
        samples = broken.reshape(-1).nonzero().reshape(-1).tolist()
        raise GradientError(
            f"sample {', '.join(map(str, samples[:8]))} is not finite, or left its range, and the loss depends on it, "
            "which has no gradient then; leave it out of the loss (see Solution.sample_results), or out of the batch."
        )


def refuse_forward_mode() -> NoReturn:
    """Raise: called where forward-mode AD asks for the derivative of a result."""
    raise GradientError(
        "forward-mode AD was asked of an adjoint that has only reverse mode; use UnrolledAdjoint there."
    )


def transformed() -> bool:
    """Return whether a transform of torch.func, or forward-mode AD, follows what is computed now."""
    return bool(peek_interpreter_stack()) or (in_forward_mode() and is_fwd_grad_enabled())


def in_forward_mode() -> bool:
    """Return whether tensors may have tangents now."""
    return forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage]


def refuse_transforms() -> None:
    """Raise where an adjoint that cannot run inside torch.func transforms was called in one.

    Raises:
        GradientError: a transform is active.
    """
    if peek_interpreter_stack():
        raise GradientError(
            "this adjoint was called inside a torch.func transform (grad, vmap, jvp ...), which cannot run its "
            "backward pass; with Reversible use ReversibleAdjoint, else use UnrolledAdjoint there."
        )


def refuse_batched(what: str, cotangents: Sequence[torch.Tensor | None]) -> None:
    """Raise where a backward pass that reads values is run for many cotangents at once.

    Args:
        what: they are of, in words.
        cotangents: None for zero.

    Raises:
        GradientError: they are a batch, or a transform follows them.
    """
    if peek_interpreter_stack() or any(c is not None and is_legacy_batchedtensor(c) for c in cotangents):
        raise GradientError(
            f"cotangents of {what} came in a batch (is_grads_batched=True, vectorize=True, or a torch.func transform "
            "round torch.autograd.grad), and the solve was outside of it; take torch.func.jacrev, torch.func.hessian, "
            "or vmap of torch.func.vjp, with the solve inside, or a loop over the cotangents."
        )


def iterate_without_graph(
    evaluate: Evaluate, solver: Iteration, stopping: Stopping, *, of: Function, watch: Watch | None = None
) -> Outcome:
    """Run the loop without recording a graph, and find what f reads if a gradient may be wanted.

    Args:
        evaluate: the function `of`, or a wrapper that calls it.
        solver: the iteration.
        stopping: when it ends.
        of: the user's function.
        watch: is told of every step.

    Raises:
        GradientError: called inside torch.func transforms, where the backward pass of this adjoint cannot run.
    """
    refuse_transforms()
    if torch.is_grad_enabled():
        of.record_reads()
    with torch.no_grad():
        return iterate(evaluate, solver, tuple(leaf.detach() for leaf in of.z0), stopping, watch or Watch())


def wants_gradient(f: Function) -> bool:
    """Whether anything that f depends on requires grad, and grad mode is on."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in (*f.z0, *f.y0, *f.arg_tensors, *f.captured))


class _NoDerivative(torch.autograd.Function):
    """The identity on tensors that were computed without a graph; differentiating them raises."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, order: str, count: int, *tensors: torch.Tensor) -> Leaves:
        ctx.order = order  # pyright: ignore[reportAttributeAccessIssue]
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: torch.Tensor) -> torch.Tensor:
        raise GradientError(
            f"{ctx.order} derivatives were asked of an adjoint that has none; use UnrolledAdjoint to "  # pyright: ignore[reportAttributeAccessIssue]
            "differentiate the gradient."
        )


def refuse_derivative(
    order: str, grads: tuple[torch.Tensor | None, ...], sources: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients so that differentiating them raises, where the caller records a graph of the backward pass.

    Args:
        order: of the derivative that would be, "second" or "third".
        grads: gradients computed without a graph; None for those not needed.
        sources: the tensors on which they depend.
    """
    if not torch.is_grad_enabled():
        return grads
    present = [g for g in grads if g is not None]
    anchors = [t for t in sources if t is not None and t.requires_grad]
    guarded = iter(_NoDerivative.apply(order, len(present), *present, *anchors) if present else ())
    return tuple(None if g is None else next(guarded) for g in grads)


def not_repeated(where: str, replay: Replay | None = None) -> GradientError:
    """Return the refusal of a function that changed between the passes.

    Args:
        where: at which evaluation that was seen, in words.
        replay: what evaluated it, if a replay did.

    Raises:
        GradientError: instead, where it is known what changed.
    """
    if replay is not None:
        replay.refuse_unlisted()
    return GradientError(
        f"function does not repeat: evaluated again in the backward pass it returned other values ({where}), so it is "
        "not one map, or something that it reads has changed since the forward pass (an attribute of a module, "
        "`.data`, a counter, numbers drawn outside torch); make every evaluation the same, hand what changes from "
        "solve to solve in args, or use UnrolledAdjoint."
    )
