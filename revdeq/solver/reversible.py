"""The reversible fixed-point iteration: two coupled states, a step that can be undone."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch._C._functorch import peek_interpreter_stack

from revdeq.arithmetic.base import Arithmetic, LeafState
from revdeq.arithmetic.bitwise import Bitwise
from revdeq.arithmetic.floating import Floating, half_step, undo_half_step
from revdeq.arithmetic.tape import Entry, Tape
from revdeq.environment import autocasting
from revdeq.function import Function
from revdeq.half_step import HalfSteps
from revdeq.residual import sample_shape
from revdeq.schedule import Schedule
from revdeq.solver.base import Evaluate, Solver
from revdeq.solver.relaxation import Beta, Pace, Relaxation, estimated_beta, validated_relaxation
from revdeq.tree import Leaves


class Coupled(NamedTuple):
    """The two coupled states, leaf by leaf as the arithmetic keeps them.

    Attributes:
        y: tensors of the state dtype in floating arithmetic, `Quantised` in bitwise arithmetic.
        z: likewise.
        tape: what the half steps so far would have lost, where a backward pass will need it; else empty.
        pace: what an adaptive run remembers; else empty.
    """

    y: tuple[LeafState, ...]
    z: tuple[LeafState, ...]
    tape: tuple[Tape, ...] = ()
    pace: tuple[Pace, ...] = ()


class Reversible(Solver):
    """The reversible iteration

        y_{n+1} = (1 - beta) y_n + beta f(z_n)          z_n = (z_{n+1} - beta f(y_{n+1})) / (1 - beta)
        z_{n+1} = (1 - beta) z_n + beta f(y_{n+1})      y_n = (y_{n+1} - beta f(z_n)) / (1 - beta)

    from y_0 = z_0. It is successive over-relaxation with omega = beta on the system {y = f(z), z = f(y)}; over all maps
    with Lipschitz constant k < 1 it converges iff 0 < beta < 2 / (1 + k). See `revdeq.rates` for how fast. Betas are
    constants for the gradient, however they were chosen.

    Args:
        beta: relaxation parameter, 0 < beta < 2, not 1. Or a schedule, two betas for every step, those of y and of z
            (`revdeq.schedule.chebyshev_schedule`); no solve may then take more steps than it has. Or "auto": the
            spectrum of df/dz near the fixed point is estimated from z0 before the iteration begins, and beta is the
            `balanced_beta` for it and for max_steps; `Solution.beta` says which, `Solution.estimate` at what cost. Or
            "adaptive": each sample's beta follows the ratios of its residuals by `revdeq.schedule.adapted_beta`, at no
            extra evaluation. That is for real spectra only: with eigenvalues off the real axis it may not converge.
        state_dtype: dtype of the states; None for float64 where z0 is narrower and the device has float64. f is always
            called in the dtype of z0. A wider state postpones the loss of digits in reverse.
        arithmetic: "floating", or "bitwise" for states that are undone to the bit at any depth, for beta = 1 - 1/m and
            1 + 1/m; or a `Bitwise` with a range and resolution of your own.
        compile: whether f and the half step round it are compiled by `torch.compile`, forward and backward; the loop
            never is. For `ReversibleAdjoint`, floating arithmetic, and a function without random numbers that compiles
            to one graph; the first solve of each function, shape and dtype takes seconds to compile.

    Raises:
        TypeError: beta is none of the above, state_dtype is not a floating dtype, arithmetic is none of the above, or
            compile is no bool.
        ValueError: a beta is NaN, outside (0, 2), or 1, or has no bitwise form; bitwise arithmetic with a beta that is
            not one number, with state_dtype, or with compile.
        RuntimeError: compile is true and this release of torch cannot compile a VJP.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
        Young, Iterative methods for solving partial difference equations of elliptic type, 1954,
        DOI 10.1090/S0002-9947-1954-0059635-7 (the over-relaxation of a 2-cyclic system).
    """

    evaluations_per_step: ClassVar[int] = 2

    def __init__(
        self,
        beta: Relaxation,
        *,
        state_dtype: torch.dtype | None = None,
        arithmetic: Literal["floating", "bitwise"] | Arithmetic = "floating",
        compile: bool = False,
    ) -> None:
        self.beta: Relaxation = validated_relaxation(beta)
        self.state_dtype = state_dtype
        self.arithmetic = _arithmetic(arithmetic, state_dtype)
        if isinstance(self.beta, float):
            self.arithmetic.check(self.beta)
        elif not isinstance(self.arithmetic, Floating):
            raise ValueError(
                f"beta is {self.beta!r} and arithmetic is {self.arithmetic!r}, whose half steps need one beta that is "
                "known beforehand; give a number such as 0.75, or arithmetic='floating'."
            )
        if not isinstance(compile, bool):
            raise TypeError(f"compile is {compile!r}; it must be True or False.")
        if compile and not isinstance(self.arithmetic, Floating):
            raise ValueError(
                f"compile is True and arithmetic is {self.arithmetic!r}, which needs values of f that repeat to the "
                "bit, as compiled ones need not; give compile=False, or arithmetic='floating'."
            )
        self.compile = compile
        self._recording = False
        self._max_steps: int | None = None
        self._record: torch.Tensor | None = None

    def __repr__(self) -> str:
        compiled = ", compile=True" if self.compile else ""
        return f"Reversible(beta={self.beta!r}, arithmetic={self.arithmetic!r}{compiled})"

    @property
    def repeats(self) -> bool:
        """Whether undoing a step returns the very bits, so that f has to be evaluated alike forward and backward."""
        return isinstance(self.arithmetic, Bitwise)

    def recording(self) -> "Reversible":
        """Return this solver with states that carry a tape of what undoing them needs."""
        recording = copy.copy(self)
        recording._recording = True
        return recording

    def repeating(self, state: Coupled) -> "Reversible":
        """Return this solver with the betas that led to `state`, where it chose them as it went; else itself."""
        if not state.pace:
            return self
        # No sample uses a beta that it has not recorded, but a NaN would spread through the ones that do.
        repeating = copy.copy(self)
        repeating._record = torch.nan_to_num(state.pace[0].record, nan=0.5)
        return repeating

    def bound_to(self, f: Function, max_steps: int) -> "Reversible":
        """Return the solver for this function and number of steps: "auto" chooses its beta here.

        Raises:
            ValueError: a schedule has fewer than max_steps steps.
            revdeq.estimate.EstimateError: "auto" found no beta that converges.
        """
        if isinstance(self.beta, float):
            return self
        bound = copy.copy(self)
        bound._max_steps = max_steps
        if isinstance(self.beta, tuple) and max_steps > len(self.beta):
            raise ValueError(
                f"max_steps is {max_steps} but the schedule beta has {len(self.beta)} steps; give a longer schedule, "
                f"or max_steps <= {len(self.beta)}."
            )
        if self.beta == "auto":
            dtypes = [self.arithmetic.dtype(leaf) for leaf in f.z0]
            bound.estimated = estimated_beta(f, max_steps, max(dtypes, key=lambda dtype: torch.finfo(dtype).eps))
            bound.beta = bound.estimated.beta
        return bound

    def betas(self, n: int | None) -> tuple[Beta, Beta]:
        """Return the betas of step n, that of the half step of y and that of z.

        Args:
            n: index of the step, from 0; None will do where all steps have one beta.

        Raises:
            ValueError: they depend on the step and n is None, or they are not known before the steps are taken.
        """
        if isinstance(self.beta, float):
            return self.beta, self.beta
        if n is None:
            raise ValueError(f"beta is {self.beta!r}, which differs from step to step; give n, the index of the step.")
        if isinstance(self.beta, tuple):
            return self.beta[n]
        if self._record is None:
            raise ValueError(
                f"the betas of {self!r} are found during a solve; hand it to solve, or use repeating(state) to undo."
            )
        return self._record[..., n], self._record[..., n]

    def retained(self, num_steps: int) -> float:
        """Return the factor |1 - beta| that a half step keeps of a state: the geometric mean over the first N steps.

        Args:
            num_steps: N. Where samples differ, the greatest of their means is returned. This waits for the device.
        """
        if isinstance(self.beta, float):
            return abs(1.0 - self.beta)
        kept = [torch.as_tensor(b, dtype=torch.float64) for n in range(num_steps) for b in self.betas(n)]
        return float(torch.stack([(1.0 - b).abs() for b in kept]).log().mean(dim=0).exp().max()) if kept else 1.0

    def init(self, z0: Leaves) -> Coupled:
        """Return y_0 = z_0 in the state dtype.

        Raises:
            ValueError: the state dtype is narrower than a leaf of z0.
        """
        batched = bool(sample_shape(z0))
        wide = [leaf.to(self.arithmetic.dtype(leaf)) for leaf in z0]
        # Only an arithmetic that takes one beta looks at it here.
        beta = self.beta if isinstance(self.beta, float) else math.nan
        y, z = (
            tuple(self.arithmetic.start(w, leaf.dtype, batched, beta) for w, leaf in zip(wide, z0, strict=True))
            for _ in range(2)
        )
        memory = self.arithmetic.memory if isinstance(self.arithmetic, Bitwise) else None
        return Coupled(y, z, (Tape(memory),) if self._recording and self.repeats else (), self._pace(z0))

    def step(self, f: Evaluate, state: Coupled, value: Leaves, n: int) -> Coupled:
        """Return the coupled states after one step, given f(z_n)."""
        if n == 0:
            state = state._replace(y=self._fit(state.y, value), z=self._fit(state.z, value))
        pace = tuple(past.after(value, self.values(state.z), n) for past in state.pace)
        beta_y, beta_z = (pace[0].beta, pace[0].beta) if pace else self.betas(n)
        y, lost_y = self._half_step(state.y, value, beta_y, n)
        z, lost_z = self._half_step(state.z, f(self.values(y)), beta_z, n)
        return Coupled(y, z, tuple(tape.push(lost_y).push(lost_z) for tape in state.tape), pace)

    def advance(self, f: Evaluate, state: Coupled, n: int) -> Coupled:
        """Return the state after step n: by compiled half steps, or in place where no graph holds on to the states."""
        if state.pace or not isinstance(self.arithmetic, Floating):
            return super().advance(f, state, n)
        beta_y, beta_z = self.betas(n)
        if self.compile:
            steps = cast(HalfSteps, f)
            y = steps.half_step(state.y, state.z, beta_y)
            return state._replace(y=y, z=steps.half_step(state.z, y, beta_z))
        # The first step makes states that are ours: before it they may be z0 itself.
        ours = n > 0 and not torch.is_grad_enabled() and not peek_interpreter_stack()
        y = tuple(half_step(s, v, beta_y, in_place=ours and _unseen(s, v)) for s, v in _pairs(state.y, f(state.z)))
        z = tuple(half_step(s, v, beta_z, in_place=ours and _unseen(s, v)) for s, v in _pairs(state.z, f(y)))
        return state._replace(y=y, z=z)

    def estimate(self, state: Coupled) -> Leaves:
        """Return z."""
        return self.values(state.z)

    def coupled(self, state: Coupled) -> Leaves:
        """Return y."""
        return self.values(state.y)

    def undo_z(
        self, z: tuple[LeafState, ...], value_at_y: Leaves, lost: Entry | None = None, n: int | None = None
    ) -> tuple[LeafState, ...]:
        """Return z_n from z_{n+1} and f(y_{n+1}).

        Args:
            z: z_{n+1}.
            value_at_y: f(y_{n+1}).
            lost: what the tape says the half step lost.
            n: index of the step; may be left out where all steps have one beta.
        """
        return self.undo_half_step(z, value_at_y, lost, self.betas(n)[1])

    def undo_y(
        self, y: tuple[LeafState, ...], value_at_z: Leaves, lost: Entry | None = None, n: int | None = None
    ) -> tuple[LeafState, ...]:
        """Return y_n from y_{n+1} and f(z_n); the arguments are those of `undo_z`."""
        return self.undo_half_step(y, value_at_z, lost, self.betas(n)[0])

    def relaxation(self, state: Coupled) -> float | Schedule | torch.Tensor | None:
        """Return the betas with which the state was reached, as `Solution.beta` has them."""
        if state.pace:
            return state.pace[0].record
        return None if isinstance(self.beta, str) else self.beta

    def values(self, states: Sequence[LeafState]) -> Leaves:
        """Return one of the two states as tensors of the state dtype."""
        return tuple(self.arithmetic.value(state) for state in states)

    def out_of_range(self, state: Coupled) -> torch.Tensor | None:
        """Return, per sample, whether a state left the range that the arithmetic holds; None where it has none."""
        flags = [self.arithmetic.out_of_range(leaf) for leaf in (*state.y, *state.z)]
        present = [flag for flag in flags if flag is not None]
        return torch.stack(present).any(dim=0) if present else None

    def returned(self, state: Coupled, z0: Leaves) -> torch.Tensor | None:
        """Return whether the rebuilt start is z0 to the bit, a 0-d bool tensor; None where that is not promised."""
        wide = [leaf.to(self.arithmetic.dtype(leaf)) for leaf in z0]
        flags = [self.arithmetic.returns(leaf, w) for leaf, w in zip((*state.y, *state.z), [*wide, *wide], strict=True)]
        present = [flag for flag in flags if flag is not None]
        return torch.stack(present).all() if present else None

    def _fit(self, states: tuple[LeafState, ...], values: Leaves) -> tuple[LeafState, ...]:
        return tuple(self.arithmetic.fit(state, value) for state, value in zip(states, values, strict=True))

    def _pace(self, z0: Leaves) -> tuple[Pace, ...]:
        if not isinstance(self.beta, str) or self._record is not None:
            return ()
        if self._max_steps is None:
            raise ValueError(f"{self!r} has no beta of its own; hand it to solve, which lets it choose.")
        return (Pace.start(z0, self._max_steps),)

    def _half_step(
        self, states: tuple[LeafState, ...], values: Leaves, beta: Beta, n: int
    ) -> tuple[tuple[LeafState, ...], Entry]:
        pairs = list(zip(states, values, strict=True))
        if isinstance(beta, torch.Tensor):
            return tuple(half_step(s, v, beta) for s, v in pairs), (None,) * len(pairs)
        taken = [self.arithmetic.half_step(s, v, beta, n) for s, v in pairs]
        return tuple(state for state, _ in taken), tuple(lost for _, lost in taken)

    def undo_half_step(
        self, states: tuple[LeafState, ...], values: Leaves, lost: Entry | None, beta: Beta, *, ours: bool = False
    ) -> tuple[LeafState, ...]:
        """Return one of the two states as it was before a half step.

        Args:
            states: the state after it, leaf by leaf.
            values: f at the other state.
            lost: what the tape says the half step lost.
            beta: the relaxation parameter that it had.
            ours: whether nobody else needs `states`, so that they may be overwritten.
        """
        if ours and isinstance(self.arithmetic, Floating):
            return tuple(undo_half_step(s, v, beta, in_place=_unseen(s, v)) for s, v in _pairs(states, values))
        if isinstance(beta, torch.Tensor):
            return tuple(undo_half_step(s, v, beta) for s, v in zip(states, values, strict=True))
        remainders = (None,) * len(states) if lost is None else lost
        return tuple(
            self.arithmetic.undo_half_step(state, value, beta, remainder)
            for state, value, remainder in zip(states, values, remainders, strict=True)
        )


def _unseen(state: torch.Tensor, value: torch.Tensor) -> bool:
    """Return whether f never sees this very tensor, but a copy in its own dtype, which it may keep.

    Args:
        state: one leaf, in the state dtype.
        value: the same leaf of f.
    """
    # Under autocast the dtype of the value is not that of z0.
    return state.dtype != value.dtype and not autocasting(state.device.type)


def _pairs(states: tuple[LeafState, ...], values: Leaves) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(states, values, strict=True)


def _arithmetic(given: object, state_dtype: torch.dtype | None) -> Arithmetic:
    if given == "floating":
        return Floating(state_dtype)
    chosen = Bitwise() if given == "bitwise" else given
    if not isinstance(chosen, Arithmetic):
        raise TypeError(
            f"arithmetic is {given!r}; it must be 'floating', 'bitwise' or an arithmetic such as Bitwise()."
        )
    if state_dtype is not None and isinstance(chosen, Bitwise):
        raise ValueError(
            f"state_dtype is {state_dtype} but arithmetic is bitwise, whose states are integers; leave state_dtype "
            "out, or give Bitwise(resolution=...)."
        )
    return chosen
