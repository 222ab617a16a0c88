"""The reversible solve inside transforms of torch.func and forward-mode AD, as functions that these can transform.

NOTE [Transforms]
A solve is made a function of tensors alone, its operands: z0, y0, the tensors of args, and what f captures (see
`revdeq.adjoint.operands`). Four such functions, none of which keeps a state, are all:

    results   = solve(operands)                              the forward pass, without a record
    gradients = gradient(cotangents, operands)               a forward pass with a record, and its way back
    tangents  = tangent(directions, operands)                a forward pass, and the way there of second_order
    second    = second(directions, cotangents, operands)     a forward pass, its way back, and that of second_order

Gradient and tangent are the VJP and the JVP of solve; the VJPs of both are each other and second, and the JVP of
gradient is gradient and second, since the second derivatives of a result are symmetric. Under vmap the samples become a
new first dimension of states and operands, and f is mapped over it. When all transforms have taken their wrappers off,
what is left are plain tensors and the solve that everybody gets, checks included. A pass that follows another one finds
the surroundings of the first, and has to come by the same values of f within rounding, of which a sketch is kept.
"""

from collections.abc import Container, Sequence
from typing import Any, cast

import torch

from revdeq._errors import GradientError
from revdeq._iterate import Outcome
from revdeq._residual import Stopping
from revdeq._tree import Leaves
from revdeq.adjoint.base import Adjoint, Attached
from revdeq.adjoint.lifted import Lifted, filled, lifted_solve
from revdeq.function import Function
from revdeq.function.linearisation import PartialLeaves, vjp
from revdeq.solver.reversible import ReversibleIteration


def run_transformed(adjoint: Adjoint, f: Function, solver: ReversibleIteration, stopping: Stopping) -> Attached:
    """Run a solve where `transformed()`; see NOTE [Transforms].

    Args:
        adjoint: the reversible one, which the plain solves inside get.
        f: the function, not yet evaluated.
        solver: the iteration.
        stopping: when it ends.

    Raises:
        GradientError: the transform cannot be right.
    """
    lifted, captured = lifted_solve(adjoint, f, solver, stopping)
    count, num_states, num_results = lifted.count, (2 + len(stopping.save_at)) * lifted.count, lifted.num_results
    found = _Solve.apply(lifted, *f.z0, *f.y0, *f.arg_tensors, *captured)
    y1, z1, *saved = (tuple(found[i : i + count]) for i in range(0, num_states, count))
    _, num_steps, results, *more = found[num_results:]
    residual = more.pop(0) if stopping.by_tolerance else None
    beta = more.pop() if more else solver.relaxation(solver.init(f.z0))
    outcome = Outcome(None, num_steps, results, residual, beta, stopping.max_steps)
    return Attached(z1, y1, outcome, None, tuple(found[num_states:num_results]), tuple(saved))


class _Solve(torch.autograd.Function):
    """Results of a solve, leaf by leaf, then what is said of each sample."""

    @staticmethod
    def forward(lifted: Lifted, *operands: torch.Tensor) -> Leaves:
        with torch.no_grad():
            results, outcome, f = lifted.solved(operands)
        told = [outcome.num_steps, outcome.sample_results]
        told += [t for t in (outcome.residual, outcome.beta) if isinstance(t, torch.Tensor)]
        return (*results, f.sum, *told)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        lifted, *operands = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[lifted.num_results :])
        ctx.lifted, ctx.told = lifted, len(output) - lifted.num_results
        ctx.save_for_backward(output[lifted.num_results], *operands)
        ctx.save_for_forward(output[lifted.num_results], *operands)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        lifted: Lifted = ctx.lifted
        needed = _indices(ctx.needs_input_grad[1:])
        grads = _Gradient.apply(lifted, needed, *cotangents[: lifted.num_results], *ctx.saved_tensors)
        return (None, *_placed(grads, needed, len(ctx.saved_tensors) - 1))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[torch.Tensor | None, ...]:
        lifted: Lifted = ctx.lifted
        directions = tangents[1:]
        along = _indices([d is not None for d in directions])
        found = _Tangent.apply(lifted, along, *(directions[i] for i in along), *ctx.saved_tensors)
        return (*found, *(None,) * ctx.told)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[Leaves, Any]:
        lifted, *operands = given
        batched, expanded = _first(operands, in_dims[1:], info.batch_size, range(lifted.num_starts))
        found = _Solve.apply(lifted.mapped(batched, info.randomness), *expanded)[: lifted.num_results + 1]
        told = torch.func.vmap(lifted.status)(found)
        return (*found, *told), 0


class _Gradient(torch.autograd.Function):
    """Gradients of the operands of these indices, of results with these cotangents."""

    @staticmethod
    def forward(lifted: Lifted, wrt: tuple[int, ...], *given: torch.Tensor | None) -> Leaves:
        cotangents, before, operands = _groups(lifted, given)
        with lifted.again():
            leaves = _leaves(operands, wrt)
            results, _, f = lifted.solved(leaves)
            lifted.compare(f, before)
            sources = tuple(leaves[i] for i in wrt)
            grads = vjp(results, cotangents, sources)
        return filled(grads, sources)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        ctx.lifted, ctx.wrt, *given = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Any, *directions: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        lifted: Lifted = ctx.lifted
        given = ctx.saved_tensors
        first = lifted.num_results + 1
        along = tuple(i for i, d in zip(ctx.wrt, directions, strict=True) if d is not None)
        needed = _indices(ctx.needs_input_grad[2 + first :])
        present = [d for d in directions if d is not None]
        if needed:
            found = _Second.apply(lifted, along, needed, *present, *given)
        else:
            found = _Tangent.apply(lifted, along, *present, *given[lifted.num_results :])
        to_cotangents, to_operands = _split(found, lifted.num_results)
        asked = zip(to_cotangents, ctx.needs_input_grad[2:], strict=False)
        placed = _placed(to_operands, needed, len(given) - first)
        return (None, None, *(c if need else None for c, need in asked), None, *placed)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[torch.Tensor | None, ...]:
        lifted: Lifted = ctx.lifted
        given = ctx.saved_tensors
        of_cotangents, _, of_operands = _groups(lifted, tangents[2:])
        parts: list[Leaves] = []
        if any(d is not None for d in of_cotangents):
            parts.append(_Gradient.apply(lifted, ctx.wrt, *of_cotangents, *given[lifted.num_results :]))
        along = _indices([d is not None for d in of_operands])
        if along:
            found = _Second.apply(lifted, along, ctx.wrt, *(of_operands[i] for i in along), *given)
            parts.append(found[lifted.num_results :])
        return parts[0] if len(parts) == 1 else tuple(a + b for a, b in zip(*parts, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[Leaves, Any]:
        lifted, wrt, *tensors = given
        first = lifted.num_results + 1
        whole = {*range(first + lifted.num_starts), *(first + i for i in wrt)}
        batched, expanded = _first(tensors, in_dims[2:], info.batch_size, whole)
        return _Gradient.apply(lifted.mapped(batched[first:], info.randomness), wrt, *expanded), 0


class _Tangent(torch.autograd.Function):
    """The tangents of the results for directions of the operands of the indices `along`."""

    @staticmethod
    def forward(lifted: Lifted, along: tuple[int, ...], *given: torch.Tensor) -> Leaves:
        directions, rest = _split(given, len(along))
        with lifted.again():
            return lifted.tangents(_leaves(rest[1:], along), dict(zip(along, directions, strict=True)), rest[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        ctx.lifted, ctx.along, *given = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        lifted, along = ctx.lifted, ctx.along
        directions, rest = _split(ctx.saved_tensors, len(along))
        needed = _indices(ctx.needs_input_grad[3 + len(along) :])
        to_directions = _Gradient.apply(lifted, along, *cotangents, *rest)
        to_operands = _Second.apply(lifted, along, needed, *directions, *cotangents, *rest)[lifted.num_results :]
        return (None, None, *to_directions, None, *_placed(to_operands, needed, len(rest) - 1))

    @staticmethod
    def jvp(ctx: Any, *directions: Any) -> Any:
        raise GradientError(
            "forward-mode AD was asked twice of ReversibleAdjoint; take jvp of grad, or grad of jvp, or use "
            "UnrolledAdjoint."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[Leaves, Any]:
        lifted, along, *tensors = given
        first = len(along) + 1
        whole = {*range(first + lifted.num_starts), *(first + i for i in along)}
        batched, expanded = _first(tensors, in_dims[2:], info.batch_size, whole)
        return _Tangent.apply(lifted.mapped(batched[first:], info.randomness), along, *expanded), 0


class _Second(torch.autograd.Function):
    """The derivative of <gradients, directions> in the cotangents, then in the operands of the indices `wrt`."""

    @staticmethod
    def forward(lifted: Lifted, along: tuple[int, ...], wrt: tuple[int, ...], *given: torch.Tensor | None) -> Leaves:
        directions, rest = _split(given, len(along))
        cotangents, before, operands = _groups(lifted, rest)
        with lifted.again():
            leaves = _leaves(operands, {*along, *wrt})
            results, _, f = lifted.solved(leaves)
            lifted.compare(f, before)
            weights = tuple(
                (torch.zeros_like(r) if c is None else c.detach().clone()).requires_grad_(r.requires_grad)
                for r, c in zip(results, cotangents, strict=True)
            )
            grads = vjp(results, weights, tuple(leaves[i] for i in along), graph=True)
            asked = tuple(w for w in weights if w.requires_grad)
            sources = (*asked, *(leaves[i] for i in wrt))
            found = filled(vjp(grads, directions, sources), sources)
        of_weights = iter(found)
        first = tuple(next(of_weights) if w.requires_grad else torch.zeros_like(w) for w in weights)
        return (*first, *found[len(asked) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        """Keep nothing: this has no derivative."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise GradientError("a third derivative was asked of ReversibleAdjoint; use UnrolledAdjoint there.")

    @staticmethod
    def jvp(ctx: Any, *directions: Any) -> Any:
        raise GradientError("a third derivative was asked of ReversibleAdjoint; use UnrolledAdjoint there.")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[Leaves, Any]:
        lifted, along, wrt, *tensors = given
        first = len(along) + lifted.num_results + 1
        whole = {*range(first + lifted.num_starts), *(first + i for i in (*along, *wrt))}
        batched, expanded = _first(tensors, in_dims[3:], info.batch_size, whole)
        return _Second.apply(lifted.mapped(batched[first:], info.randomness), along, wrt, *expanded), 0


def _groups(lifted: Lifted, given: Sequence[Any]) -> tuple[PartialLeaves, Any, PartialLeaves]:
    """Return cotangents, the sum of sketches, and operands."""
    first = lifted.num_results
    return tuple(given[:first]), given[first], tuple(given[first + 1 :])


def _split(given: Sequence[Any], first: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(given[:first]), tuple(given[first:])


def _indices(flags: Sequence[bool]) -> tuple[int, ...]:
    return tuple(i for i, flag in enumerate(flags) if flag)


def _placed(found: Sequence[torch.Tensor], places: Sequence[int], count: int) -> PartialLeaves:
    """Return `count` tensors, those found in their places, and None elsewhere."""
    there = dict(zip(places, found, strict=True))
    return tuple(there.get(i) for i in range(count))


def _leaves(operands: PartialLeaves, followed: Container[int]) -> Leaves:
    """Return operands without a graph; those of the indices `followed` require grad."""
    return tuple(cast(torch.Tensor, t).detach().requires_grad_(i in followed) for i, t in enumerate(operands))


def _first(
    given: Sequence[torch.Tensor | None], dims: Sequence[int | None], size: int, whole: Container[int]
) -> tuple[list[bool], PartialLeaves]:
    """Return tensors with their mapped dimension in front, and whether they have one; `whole` says which shall have."""
    moved: list[torch.Tensor | None] = []
    for i, (tensor, dim) in enumerate(zip(given, dims, strict=True)):
        if tensor is None or (dim is None and i not in whole):
            moved.append(tensor)
        else:
            moved.append(tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0))
    return [dim is not None or i in whole for i, dim in enumerate(dims)], tuple(moved)
