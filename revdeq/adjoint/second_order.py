"""The derivative of a reversible gradient: gradient penalties, forces in a loss, products with a Hessian.

NOTE [Second derivatives]
With F the map of N steps from the leaves theta = (z0, args, captured tensors) and c a cotangent of its results, the
backward pass returns g(c, theta) = (dF/dtheta)^T c. Autograd asks for the product of a direction v, shaped like theta,
with the derivative of g:

    in c:       dF/dtheta v, tangents that go through the steps beside the states, forwards;
    in theta:   second cotangents r that come back through the steps beside the cotangents p of c.

Half step k, s' = (1 - beta) s + beta f(o), takes the tangents and both kinds of cotangents through

    ds' = (1 - beta) ds + beta (K do + f_theta v)
    q <- q + beta K^T p                                 p <- (1 - beta) p       theta: beta f_theta^T p
    t <- t + beta K^T r + d<g_k, (do, v)>/do            r <- (1 - beta) r       theta: beta f_theta^T r + d<...>/dtheta

where q and t belong to o, K = df/dz at o, and g_k = beta (K^T p, f_theta^T p) is the product of the first pass. This is
what autograd does with the recorded graph of all steps, so no more is asked of f than that its VJP can be
differentiated, and where a VJP is not the transpose of a derivative the answer is still autograd's.

Nothing is undone here. States and tangents are kept at the start of every segment of about sqrt(N) steps; each segment
is taken once more, forwards, with what f sees stored, and then gone back through. Memory: both states and their
tangents once a segment, and what f sees with two tangents at each evaluation of one segment, about 10 sqrt(N) states in
all, and the graph of one evaluation.

The first gradient comes along and is compared with the one that was returned, and so are the tangents on the way there
and back: a function that has changed, or whose VJP is not linear (a hook that clips gradients), is refused.
"""

import contextlib
import math
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from revdeq._errors import GradientError
from revdeq._fingerprint import sketch
from revdeq._iterate import repeat, where_active
from revdeq._residual import per_sample
from revdeq._tree import Leaves, flatten, unflatten
from revdeq.adjoint.base import not_repeated, refuse_batched, refuse_derivative
from revdeq.adjoint.pullback import AuxCotangents, Pullback, in_order_of_sources, widened
from revdeq.arithmetic.floating import half_step, scaled
from revdeq.function import Function, Replay
from revdeq.function.linearisation import PartialLeaves, difference, repeatability
from revdeq.solver.reversible import Coupled, ReversibleIteration


class Trajectory(NamedTuple):
    """A forward pass, whose steps can be taken again.

    Attributes:
        f: the function.
        solver: the iteration, with the betas that it took.
        masks: for each step the samples that took it; None for all.
        save_at: numbers of steps whose states were returned.
        broken: per sample, whether it has no gradient; None where all have one.
        checked: whether the gradient to be differentiated is that of stored states.
    """

    f: Function
    solver: ReversibleIteration
    masks: Sequence[torch.Tensor | None]
    save_at: tuple[int, ...]
    broken: torch.Tensor | None
    checked: bool


def differentiable(
    grads: PartialLeaves, trajectory: Trajectory, cotangents: Sequence[torch.Tensor | None], sources: Leaves
) -> PartialLeaves:
    """Return the gradients with a graph; see NOTE [Second derivatives].

    Args:
        grads: the gradients of `sources`, computed without one; None for those not needed.
        trajectory: the steps.
        cotangents: of what the solve returned; None for zero.
        sources: z0, y0 where it is another one, the tensors of args, and the captured ones.
    """
    needed = [i for i, g in enumerate(grads) if g is not None]
    if not needed:
        return grads
    present = tuple(g for g in grads if g is not None)
    found: Leaves = _Gradient.apply(trajectory, present, needed, len(cotangents), *cotangents, *sources)
    return tuple(dict(zip(needed, found, strict=True)).get(i) for i in range(len(grads)))


def tangents(trajectory: Trajectory, sources: Leaves, directions: PartialLeaves) -> PartialLeaves:
    """Return the derivative in a direction of what the solve returned, None for zero.

    Args:
        trajectory: the steps.
        sources: z0, y0 where it is another one, the tensors of args, and the captured ones.
        directions: one for each of them; None for zero.
    """
    return _Way(trajectory, sources, directions).tangents()


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, trajectory: Trajectory, grads: Leaves, needed: list[int], count: int, *given: torch.Tensor | None
    ) -> Leaves:
        ctx.set_materialize_grads(False)
        ctx.trajectory, ctx.needed, ctx.count = trajectory, needed, count
        # That the constants of f were not changed in place is found out when they are unpacked.
        ctx.save_for_backward(*given, *trajectory.f.constants)
        ctx.given, ctx.before = len(given), sketch(grads)
        return tuple(g.view_as(g) for g in grads)

    @staticmethod
    def backward(ctx: Any, *directions: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        refuse_batched("the gradient of a solve", directions)
        saved = ctx.saved_tensors[: ctx.given]
        cotangents, sources = saved[: ctx.count], saved[ctx.count :]
        trajectory: Trajectory = ctx.trajectory
        asked = ctx.needs_input_grad[4:]
        along = dict(zip(ctx.needed, directions, strict=True))
        with torch.no_grad():
            way = _Way(trajectory, sources, tuple(along.get(i) for i in range(len(sources))))
            if any(asked[ctx.count :]):
                found = way.there_and_back(cotangents, ctx.needed, ctx.before)
            else:
                found = (*way.tangents(), *(None for _ in sources))
        wanted = tuple(g if need else None for g, need in zip(found, asked, strict=True))
        return (None, None, None, None, *refuse_derivative("third", wanted, (*directions, *saved)))


class _Point(NamedTuple):
    """One evaluation of f on the way there.

    Attributes:
        at: what f saw.
        tangent: of that, in the state dtype.
        of_value: tangent of f's value; None for zero.
    """

    at: Leaves
    tangent: Leaves
    of_value: PartialLeaves


class _Tangents:
    """Evaluates f at the states of steps that are taken again, and takes tangents through the steps beside them.

    Args:
        trajectory: the steps.
        replay: f in the backward pass.
        along: the directions of `Replay.inputs`; None for zero.
        start: where they begin.
        keep: whether the points are wanted.

    Attributes:
        y: tangent of y.
        z: tangent of z.
        aux: tangents of the auxiliary output so far.
        saved: tangents of z after numbers of steps of `Trajectory.save_at`.
        points: what was evaluated.
    """

    def __init__(
        self, trajectory: Trajectory, replay: Replay, along: PartialLeaves, start: "_Segment", *, keep: bool
    ) -> None:
        self._trajectory, self._replay, self._along, self._keep = trajectory, replay, along, keep
        self._next = 2 * start.steps.start
        self.y, self.z, self.aux = start.y, start.z, start.aux
        self.saved: dict[int, Leaves] = {}
        self.points: list[_Point] = []

    def __call__(self, z: Leaves) -> Leaves:
        """Evaluate f; the evaluations are those of `repeat`, two a step."""
        k, self._next = self._next, self._next + 1
        n = k // 2
        active, beta = self._trajectory.masks[n], self._trajectory.solver.betas.of_step(n)[k % 2]
        if k % 2:
            moved, other = self.z, self.y if active is None else where_active(active, self.y, self.z)
        else:
            moved, other = self.y, self.z
            self.returned(n)
        at = self._replay.narrow(z)
        f = self._replay.linearise(at, k)
        of_value, of_aux = f.push_forward(other, self._along)
        if self._keep:
            self.points.append(_Point(at, other, of_value))
        parts = zip(moved, of_value, strict=True)
        stepped = tuple(scaled(s, 1.0 - beta) if d is None else half_step(s, d, beta) for s, d in parts)
        if active is not None:
            stepped = where_active(active, stepped, moved)
        self.y, self.z = (self.y, stepped) if k % 2 else (stepped, self.z)
        if self.aux and self._trajectory.f.extras.has_aux == "sum":
            of_aux = tuple(b if a is None else a if b is None else a + b for a, b in zip(self.aux, of_aux, strict=True))
        self.aux = of_aux
        return f.value

    def returned(self, n: int) -> None:
        """Take note of the tangent of z after n steps, where that state was returned."""
        if n in self._trajectory.save_at:
            self.saved[n] = self.z


class _Segment(NamedTuple):
    """Some steps, and where they start.

    Attributes:
        steps: the steps.
        state: the states before them.
        y: tangent of y there.
        z: tangent of z there.
        aux: tangents of the auxiliary output so far.
    """

    steps: range
    state: Coupled
    y: Leaves
    z: Leaves
    aux: PartialLeaves


class _Way:
    """The way there, with tangents, and back, with both kinds of cotangents; see NOTE [Second derivatives].

    Args:
        trajectory: the steps.
        sources: z0, y0 where it is another one, the tensors of args, and the captured ones.
        directions: one for each of the sources; None for zero.
    """

    def __init__(self, trajectory: Trajectory, sources: Leaves, directions: PartialLeaves) -> None:
        f, count = trajectory.f, len(trajectory.f.z0)
        start = count + len(f.y0)
        given = start + len(f.args_require)
        self._sources, self._z0, self._y0 = sources, sources[:count], sources[count:start]
        solver = trajectory.solver.uncompiled().starting(self._y0)
        self._trajectory = trajectory._replace(solver=solver)
        self._all_needed = [True] * len(sources)
        self._replay = Replay(f, sources[start:given], self._all_needed[given:])
        of_args = [d for d, required in zip(directions[start:given], f.args_require, strict=True) if required]
        self._along: PartialLeaves = (*of_args, *directions[given:])
        dtypes = [solver.arithmetic.dtype(leaf) for leaf in self._z0]
        self._of_z0 = widened(directions[:count], self._z0, dtypes)
        self._of_y0 = widened(directions[count:start], self._y0, dtypes) if self._y0 else self._of_z0
        self._allowed = repeatability(self._replay.roundoff)

    def tangents(self) -> PartialLeaves:
        """Return the derivative in the directions of what the solve returned; None for zero."""
        with self._active():
            return self._there(return_too=False)[0]

    def there_and_back(self, cotangents: PartialLeaves, needed: Sequence[int], before: torch.Tensor) -> PartialLeaves:
        """Return the derivative of <first gradients, directions> in the cotangents and the sources; None for zero.

        Args:
            cotangents: of what the solve returned; None for zero.
            needed: indices of the sources whose first gradients were returned.
            before: the sketch of those.

        Raises:
            GradientError: f is not what it was, or its VJP is not linear.
        """
        trajectory, solver = self._trajectory, self._trajectory.solver
        steps = len(trajectory.masks)
        first = Pullback.of_results(trajectory.f, solver, self._replay, self._z0, trajectory.save_at, steps, cotangents)
        zeros = (tuple(torch.zeros_like(p) for p in leaves) for leaves in (first.y, first.z))
        second = Pullback(solver, self._replay, next(zeros), next(zeros), AuxCotangents(), {})
        with self._active():
            results, segments, points = self._there(return_too=True)
            while segments:
                self._back(segments.pop().steps, points, first, second)
                points = self._through(segments[-1], keep=True)[1].points if segments else []
        if trajectory.checked:
            once = self._of_sources(first)
            found = sketch(tuple(_whole(once[i], self._sources[i]) for i in needed))
            if bool(torch.isfinite(before).all()) and not difference((found,), (before,)) <= self._allowed:
                raise not_repeated("in the second derivative, where another first one came out")
        return (*results, *self._of_sources(second))

    @contextlib.contextmanager
    def _active(self) -> Generator[None]:
        # Fused attention has no second derivative.
        with self._replay.active(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield

    def _there(self, *, return_too: bool) -> tuple[PartialLeaves, list[_Segment], list[_Point]]:
        """Take all steps; return the tangents of the results, where segments start, and the points of the last one.

        Args:
            return_too: whether the way back follows; else nothing is kept for it.
        """
        num_steps = len(self._trajectory.masks)
        length = max(1, round(math.sqrt(num_steps)) if return_too else num_steps)
        starts = [*range(0, max(1, num_steps), length), num_steps]
        at = _Segment(range(0), self._trajectory.solver.init(self._z0), self._of_y0, self._of_z0, ())
        segments: list[_Segment] = []
        saved: dict[int, Leaves] = {}
        points: list[_Point] = []
        for begin, end in pairwise(starts):
            segments.append(at._replace(steps=range(begin, end)))
            state, passed = self._through(segments[-1], keep=return_too and end == num_steps)
            at = _Segment(range(0), state, passed.y, passed.z, passed.aux)
            saved |= passed.saved
            points = passed.points
        states = (*at.y, *at.z, *(leaf for n in self._trajectory.save_at for leaf in saved[n]))
        z0 = self._z0 * (len(states) // len(self._z0))
        narrow = tuple(t.to(leaf.dtype) for t, leaf in zip(states, z0, strict=True))
        broken = self._trajectory.broken
        if broken is not None:
            narrow = tuple(t.masked_fill(per_sample(broken, t), math.nan) for t in narrow)
        return (*narrow, *at.aux), segments, points

    def _through(self, start: _Segment, *, keep: bool) -> tuple[Coupled, _Tangents]:
        """Take the steps of a segment with the operations of the forward pass; return the states after them."""
        tangents = _Tangents(self._trajectory, self._replay, self._along, start, keep=keep)
        leaves, structure = flatten(start.state)
        state = unflatten([leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], structure)
        masks = self._trajectory.masks[start.steps.start : start.steps.stop]
        end = repeat(tangents, self._trajectory.solver, state, start.steps.start, masks)
        tangents.returned(start.steps.stop)
        return end, tangents

    def _back(self, steps: range, points: list[_Point], first: Pullback, second: Pullback) -> None:
        for k in reversed(range(2 * steps.start, 2 * steps.stop)):
            point, active = points.pop(), self._trajectory.masks[k // 2]
            first.join(k)
            found = self._replay.linearise(point.at, k).pull_back_twice(
                first.of_value(k, active), first.of_aux(k), second.of_value(k, active), point.tangent, self._along
            )
            pairs = [
                (_whole(a, x), _whole(b, x)) for a, b, x in zip(found.tangent, point.of_value, point.at, strict=True)
            ]
            if not difference(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)) <= self._allowed:
                raise GradientError(
                    f"the second derivative of function depends on the size of the gradient that flows through it (at "
                    f"evaluation {k}), as a hook that clips gradients makes it, or function does not repeat; leave "
                    "that out, or use UnrolledAdjoint."
                )
            first.passed(k, active, found.to_z, found.to_inputs)
            second.passed(k, active, found.second_to_z, found.second_to_inputs)

    def _of_sources(self, pullback: Pullback) -> PartialLeaves:
        """Return the gradients that a pullback leaves, in the order of the sources."""
        starts, found = (*self._z0, *self._y0), pullback.to_start(together=not self._y0)
        start = tuple(g.to(leaf.dtype) for g, leaf in zip(found, starts, strict=True))
        return in_order_of_sources(start, pullback.inputs(), self._trajectory.f, self._all_needed)


def _whole(part: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if part is None else part
