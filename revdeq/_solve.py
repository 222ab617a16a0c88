"""The entry point: find a fixed point of a function, differentiably."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar, cast, overload

import torch
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor

from revdeq._environment import graph_kernels
from revdeq._residual import Stopping, residual_norm
from revdeq._solution import Copied, Result, Solution, SolveError
from revdeq._tree import Leaves, flatten
from revdeq.adjoint import Adjoint, ImplicitAdjoint, ReversibleAdjoint, UnrolledAdjoint
from revdeq.function import Function
from revdeq.function.border import BatchDims
from revdeq.function.extras import Extras, HasAux
from revdeq.function.linearisation import repeatability
from revdeq.function.surroundings import is_symbolic
from revdeq.solver import Reversible, Solver


State = TypeVar("State")
Args = TypeVar("Args")

FIXED_STEPS = 8
"""Steps that a solve without tolerances takes where no number is given."""

MOST_STEPS = 100
"""The greatest number of steps of a solve with tolerances where none is given."""


@overload
def solve(
    function: Callable[[State, Args], State],
    z0: State,
    args: Args = ...,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    throw: bool = True,
    batch_dims: BatchDims | None = None,
    save_at: Sequence[int] = (),
    y0: State | None = None,
) -> Solution[State]: ...
@overload
def solve(
    function: Callable[..., Any],
    z0: State,
    args: Any = ...,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    throw: bool = True,
    batch_dims: BatchDims | None = None,
    has_aux: HasAux | None,
    with_step: bool = False,
    save_at: Sequence[int] = (),
    y0: State | None = None,
) -> Solution[State]: ...
@overload
def solve(
    function: Callable[..., Any],
    z0: State,
    args: Any = ...,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    throw: bool = True,
    batch_dims: BatchDims | None = None,
    has_aux: HasAux | None = None,
    with_step: bool,
    save_at: Sequence[int] = (),
    y0: State | None = None,
) -> Solution[State]: ...
def solve(
    function: Callable[..., Any],
    z0: State,
    args: Any = (),
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    throw: bool = True,
    batch_dims: BatchDims | None = None,
    has_aux: HasAux | None = None,
    with_step: bool = False,
    save_at: Sequence[int] = (),
    y0: State | None = None,
) -> Solution[State]:
    """Iterate z = function(z, args) from z0 and return the final states, with gradients as the adjoint defines them.

    Gradients reach z0 (where the adjoint has one), every tensor of args, every parameter of an nn.Module and every
    captured tensor that requires grad. Without tolerances exactly max_steps steps are taken; with `throw=False` this
    never waits for the device. With tolerances each sample stops by itself when

        ||function(z) - z|| <= atol + rtol ||function(z)||        (2-norm over the sample)

    and goes on where the others raise its residual again, so that what is returned as converged is so at the very
    states returned.

    Args:
        function: callable of (z, args) that returns the next z: same structure, shapes, dtypes and device as z0.
        z0: start state, a tensor or pytree of tensors of real floating dtypes on one device.
        args: any pytree, handed to function unchanged.
        solver: how to iterate, such as `Reversible(0.8)`; None for `Reversible(0.5)`.
        adjoint: how to differentiate, such as `ReversibleAdjoint()`; None for that with `Reversible`, and for
            `ImplicitAdjoint()` with the other solvers.
        max_steps: number of steps, or the greatest number where tolerances are given; an int >= 0; None for 8, or 100
            with tolerances.
        rtol: relative tolerance, dimensionless, or None.
        atol: absolute tolerance in the unit of z, or None; both or neither.
        throw: whether a failure raises; otherwise it stands in `Solution.result`.
        batch_dims: 0 where the whole state is one sample, whatever its shape (nodes of a graph, a matrix, a sequence
            whose first dimension is time), 1 where dimension 0 of every leaf counts samples. None goes by the shapes:
            dimension 0 counts samples when all leaves have at least two dimensions and agree in the first.
        has_aux: where function returns a pair (z, aux) of the next z and a pytree of tensors (a loss collected inside,
            attention maps, halting scores): "last" for the aux of the last evaluation of a step, "sum" for the sum over
            all evaluations in steps; it is returned as `Solution.aux`, with gradients. None where it returns z alone.
            With `ImplicitAdjoint` and `PhantomAdjoint` the aux is that at the state returned.
        with_step: whether function takes the index of the step, an int from 0, as a third argument (embeddings and
            gates of looped models); both evaluations of a reversible step get the same. Not with tolerances, nor with
            the adjoints of the fixed point, since such a function has none.
        save_at: numbers of steps after which the state is wanted too; `Solution.saved` has them, differentiable. For a
            fixed number of steps, with `ReversibleAdjoint` and `UnrolledAdjoint`.
        y0: the second state at the start, like z0, with a gradient as z0 has; None for z0 itself. With z0 and y0 the z1
            and y1 of an earlier solve, `Reversible` goes on where that one ended, but for the digits of wider states
            that z1 and y1 do not hold; steps are counted from 0 again. Not with bitwise arithmetic.

    Returns:
        The solution; z1 and y1 have the structure and dtypes of z0.

    Raises:
        TypeError, ValueError: an argument, or what function returns, is not as said above; the solver compiles half
            steps that the adjoint cannot differentiate; throw is true where how the solve went cannot be read.
        SolveError: the solve failed and throw is true; its `result` says how.
        GradientError: a gradient would be lost or cannot be computed with this adjoint.
    """
    solver = Reversible(0.5) if solver is None else solver
    if not isinstance(solver, Solver):
        raise TypeError(
            f"solver is {solver!r}; it must be a solver object such as Reversible(0.8), Relaxed(1.0), Anderson(), "
            "Broyden(), PeacemanRachford(1.0) or ForwardBackward(0.5)."
        )
    if solver.affine_only:
        raise TypeError(
            f"{solver!r} solves affine equations alone, and a function need not be affine; give it to "
            "ImplicitAdjoint(solver=...), and solve with Reversible, Relaxed, Anderson or Broyden."
        )
    adjoint = natural_adjoint(solver) if adjoint is None else adjoint
    if not isinstance(adjoint, Adjoint):
        raise TypeError(
            f"adjoint is {adjoint!r}; it must be an adjoint object such as ReversibleAdjoint(), ImplicitAdjoint(), "
            "PhantomAdjoint(), CheckpointedAdjoint() or UnrolledAdjoint()."
        )
    if solver.compile and not adjoint.compiles:
        raise TypeError(
            f"{solver!r} compiles f into half steps that {adjoint!r} cannot differentiate; use ReversibleAdjoint, or "
            "give compile=False and, if you like, torch.compile(function) as the function."
        )
    if not isinstance(throw, bool):
        raise TypeError(f"throw is {throw!r}; it must be True or False.")
    stopping = Stopping(natural_steps(max_steps, rtol, atol), rtol, atol, tuple(save_at))
    extras = Extras(has_aux, with_step, solver.evaluations_per_step)
    if with_step and (stopping.by_tolerance or adjoint.of_fixed_point):
        raise ValueError(
            f"with_step is True, so function differs from step to step and has no fixed point, but {adjoint!r} or a "
            "tolerance asks for one; leave rtol and atol out, and use ReversibleAdjoint, CheckpointedAdjoint or "
            "UnrolledAdjoint."
        )
    if y0 is not None and not solver.couples:
        raise ValueError(f"y0 is given, and {solver!r} has no second state; leave it out, or use Reversible.")
    if save_at and not adjoint.saves:
        raise ValueError(f"save_at is given, and {adjoint!r} cannot; use ReversibleAdjoint or UnrolledAdjoint.")
    return _solve_untraced(function, z0, args, solver, adjoint, stopping, throw, batch_dims, extras, y0)


def natural_adjoint(solver: Solver) -> Adjoint:
    """Return the adjoint that a solver is differentiated with where none is given."""
    return ReversibleAdjoint() if isinstance(solver, Reversible) else ImplicitAdjoint()


def natural_steps(max_steps: int | None, rtol: float | None, atol: float | None) -> int:
    """Return the number of steps, and where none is given the one that goes with the tolerances."""
    if max_steps is not None:
        return max_steps
    return FIXED_STEPS if rtol is None and atol is None else MOST_STEPS


def _solve(
    function: Callable[[Any, Any], Any],
    z0: Any,
    args: Any,
    solver: Solver,
    adjoint: Adjoint,
    stopping: Stopping,
    throw: bool,
    batch_dims: BatchDims | None,
    extras: Extras,
    y0: Any,
) -> Solution[Any]:
    if is_symbolic(tuple(leaf for leaf in flatten(z0)[0] if isinstance(leaf, torch.Tensor))):
        solver, adjoint, throw = _without_values(solver, stopping), UnrolledAdjoint(), False
    with graph_kernels() if torch.is_grad_enabled() else nullcontext():
        f = _function(solver)(function, z0, args, batch_dims=batch_dims, extras=extras)
        f.y0 = () if y0 is None else f.border.second(y0)
        bound = solver.bound_to(f, stopping.max_steps)
        attached = adjoint.run(f, bound, stopping)
        f.finish()
    outcome, border = attached.outcome, f.border
    beta = outcome.beta
    solution = Solution[Any](
        z1=border.tree(attached.z1),
        y1=None if attached.y1 is None else border.tree(attached.y1),
        num_steps=border.of_samples(outcome.num_steps),
        sample_results=border.of_samples(outcome.sample_results),
        health=attached.health,
        beta=border.of_samples(beta) if isinstance(beta, torch.Tensor) else beta,
        estimate=bound.estimated,
        aux=extras.tree(attached.aux),
        saved=tuple(border.tree(leaves) for leaves in attached.saved),
        _residual=_Residual(f, attached.z1, outcome.residual),
    )
    if throw and _batched(solution.sample_results):
        raise ValueError(
            "throw=True reads how the solve went, which vmap does not allow; give throw=False and look at "
            "Solution.sample_results after the transform."
        )
    if throw and f.capturing:
        raise ValueError(
            "throw=True reads how the solve went, which the capture of a CUDA graph does not allow; give throw=False "
            "and look at Solution.sample_results after a replay."
        )
    if throw and not solution.result.succeeded:
        raise SolveError(solution.result, _failure(solution, stopping))
    return solution


def _without_values(solver: Solver, stopping: Stopping) -> Solver:
    """Return the solver for tensors that have no values: they are iterated in plain operations, as an export wants.

    Raises:
        ValueError: the solve asks for values.
    """
    what = "rtol and atol are given" if stopping.by_tolerance else None
    if isinstance(solver, Reversible):
        what = "beta is 'auto'" if solver.beta == "auto" else what
        solver = replace(solver, compile=False)
    if what is not None:
        raise ValueError(
            f"{what}, which goes by the values of states, and these have none (a meta or fake tensor, or an export); "
            "give a number of steps alone, and a beta."
        )
    return solver


def _function(solver: Solver) -> type[Function]:
    if not solver.compile:
        return Function
    # The compiler takes long to import and most solves do not need it.
    from revdeq._compiled import CompiledFunction

    return CompiledFunction


# torch.compile runs the solve as it is: the loop and its backward pass are not traced.
_solve_untraced = cast(Callable[..., Any], torch.compiler.disable(_solve))


def _batched(tensor: torch.Tensor) -> bool:
    """Return whether a vmap, at any level of torch.func transforms, holds several values in the tensor."""
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            return True
        tensor = get_unwrapped(tensor)
    return False


class _Residual:
    """The residual of the returned state: known, or evaluated when first asked for."""

    def __init__(self, f: Function, z1: Leaves, known: torch.Tensor | None) -> None:
        self._f, self._z1, self._known = f, tuple(z.detach() for z in z1), known
        self._versions = [z._version for z in z1 if not z.is_inference()]

    def __call__(self) -> torch.Tensor:
        if self._known is None:
            self._known = self._evaluated()
        return self._f.border.of_samples(self._known)

    def detached(self) -> "_Residual":
        """See `revdeq._solution.Residual`."""
        return _Residual(self._f.without_graph(), self._z1, self._known)

    def copied(self) -> Copied:
        """See `revdeq._solution.Residual`."""
        return Copied(None if self._known is None else self._f.border.of_samples(self._known))

    def _evaluated(self) -> torch.Tensor:
        if [z._version for z in self._z1 if not z.is_inference()] != self._versions:
            raise RuntimeError(
                "the residual was asked for after the returned state was changed in place; read Solution.residual "
                "before that, or change a copy."
            )
        if self._f.extras.with_step:
            raise RuntimeError(
                "the residual was asked for of a function that takes the index of the step, which has no fixed point."
            )
        # Nothing needs a gradient here: a replay brings back the surroundings and leaves no trace.
        replay = self._f.replay(self._f.arg_tensors, [False] * len(self._f.captured))
        with replay.active(), torch.no_grad():
            moved = self._f.difference_of_last(replay.evaluate)
            if moved is not None and not moved <= repeatability(self._f.roundoff):
                raise RuntimeError(
                    "the residual was asked for after something that function reads has changed (an optimiser's step, "
                    "for example), so it would not be that of the solve; read Solution.residual before that."
                )
            return residual_norm(replay.evaluate(self._z1), self._z1)


def _failure(solution: Solution[Any], stopping: Stopping) -> str:
    """Return one clause that says which samples failed, and by how much."""
    worst = solution.result
    failed = (solution.sample_results == worst.code).reshape(-1).nonzero().reshape(-1).tolist()
    which = ", ".join(map(str, failed[:8])) + (" ..." if len(failed) > 8 else "")
    steps = solution.num_steps.reshape(-1)[failed].tolist()
    when = f"after {min(steps)} steps" if min(steps) == max(steps) else f"after {min(steps)} to {max(steps)} steps"
    if worst is Result.NONFINITE:
        return f"The state or the function's value is not finite in sample {which} {when}."
    if worst is Result.OUT_OF_RANGE:
        return f"The state of sample {which} overflowed within {max(steps)} steps."
    residual = float(solution.residual.reshape(-1)[failed].max())
    return (
        f"The residual of sample {which} is {residual:.2e} {when}, above atol {stopping.atol} + rtol {stopping.rtol} "
        "times the norm of the function's value."
    )
