"""The reversible fixed-point iteration: two coupled states, a step that can be undone."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, NamedTuple

import torch

from revdeq._automatic import AutomaticBeta
from revdeq._residual import sample_shape
from revdeq._schedule import Schedule
from revdeq._tree import Leaves
from revdeq.arithmetic.base import Arithmetic
from revdeq.arithmetic.bitwise import Bitwise
from revdeq.arithmetic.floating import Floating
from revdeq.arithmetic.tape import Entry, Tape
from revdeq.function import Function
from revdeq.solver.base import Evaluate, Iteration, Solver
from revdeq.solver.betas import AdaptiveBetas, Beta, Betas, ConstantBeta, Pace, RecordedBetas, ScheduledBetas
from revdeq.solver.half_steps import CompiledHalfSteps, FloatingHalfSteps, HalfSteps, LeafwiseHalfSteps, States
from revdeq.solver.relaxation import Relaxation, estimated_beta, validated_relaxation


class Coupled(NamedTuple):
    """The two coupled states, leaf by leaf as the arithmetic keeps them.

    Attributes:
        y: tensors of the state dtype in floating arithmetic, `Quantised` in bitwise arithmetic.
        z: likewise.
        tape: what the half steps so far would have lost, where a backward pass will need it; else empty.
        pace: what an adaptive run remembers; else empty.
    """

    y: States
    z: States
    tape: tuple[Tape, ...] = ()
    pace: tuple[Pace, ...] = ()


@dataclass(frozen=True, repr=False)
class Reversible(Solver):
    """The reversible iteration

        y_{n+1} = (1 - beta) y_n + beta f(z_n)          z_n = (z_{n+1} - beta f(y_{n+1})) / (1 - beta)
        z_{n+1} = (1 - beta) z_n + beta f(y_{n+1})      y_n = (y_{n+1} - beta f(z_n)) / (1 - beta)

    from y_0 = z_0, if `solve` is given no other y_0. It is successive over-relaxation with omega = beta on the system
    {y = f(z), z = f(y)}; over all maps with Lipschitz constant k < 1 it converges iff 0 < beta < 2 / (1 + k). See
    `revdeq.rates` for how fast. Betas are constants for the gradient, however they were chosen.

    Args:
        beta: relaxation parameter, 0 < beta < 2, not 1. Or a schedule, two betas for every step, those of y and of z
            (`revdeq._schedule.chebyshev_schedule`); no solve may then take more steps than it has. Or "auto": a
            short trial from z0 before the iteration begins chooses it (`revdeq.automatic_beta`); `Solution.beta` says
            which, `Solution.estimate` why and at what cost. Or
            "adaptive": each sample's beta follows the ratios of its residuals by `revdeq._schedule.adapted_beta`, at no
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
    couples: ClassVar[bool] = True

    beta: Relaxation
    _: KW_ONLY
    state_dtype: torch.dtype | None = None
    arithmetic: Literal["floating", "bitwise"] | Arithmetic = "floating"
    compile: bool = False

    def __post_init__(self) -> None:
        beta = validated_relaxation(self.beta)
        arithmetic = _arithmetic(self.arithmetic, self.state_dtype)
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "arithmetic", arithmetic)
        if isinstance(beta, float):
            arithmetic.check(beta)
        elif not isinstance(arithmetic, Floating):
            raise ValueError(
                f"beta is {beta!r} and arithmetic is {arithmetic!r}, whose half steps need one beta that is known "
                "beforehand; give a number such as 0.75, or arithmetic='floating'."
            )
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile is {self.compile!r}; it must be True or False.")
        if self.compile and not isinstance(arithmetic, Floating):
            raise ValueError(
                f"compile is True and arithmetic is {arithmetic!r}, which needs values of f that repeat to the "
                "bit, as compiled ones need not; give compile=False, or arithmetic='floating'."
            )

    def __repr__(self) -> str:
        compiled = ", compile=True" if self.compile else ""
        return f"Reversible(beta={self.beta!r}, arithmetic={self.arithmetic!r}{compiled})"

    @property
    def numbers(self) -> Arithmetic:
        """The arithmetic of the states."""
        assert isinstance(self.arithmetic, Arithmetic)
        return self.arithmetic

    def bound_to(self, f: Function | None, max_steps: int) -> "ReversibleIteration":
        """Return the iteration for this function and number of steps: "auto" chooses its beta here.

        Args:
            f: the user's function; None for a map that is none, such as the adjoint equation.
            max_steps: steps that will be taken at most.

        Raises:
            ValueError: a schedule has fewer than max_steps steps, or "auto" has no function to look at.
            revdeq._estimate.EstimateError: "auto" found no beta that converges.
        """
        beta, estimated = self.beta, None
        if beta == "auto":
            if f is None:
                raise ValueError("beta is 'auto', which looks at the function of a solve; give a number here.")
            estimated = estimated_beta(f, max_steps)
            beta = estimated.beta
        if f is not None and f.y0 and not isinstance(self.numbers, Floating):
            raise ValueError(
                f"y0 is given, and the integers of {self.arithmetic!r} start from one state; leave it out, or give "
                "arithmetic='floating'."
            )
        half_steps = _half_steps(self.numbers, self.compile)
        return ReversibleIteration(_betas(beta, max_steps), half_steps, estimated, y0=() if f is None else f.y0)


class ReversibleIteration(Iteration):
    """The steps of `Reversible`: its betas, and how its half steps are taken.

    Args:
        betas: relaxation parameters.
        half_steps: how half steps are taken and undone.
        estimated: the spectrum from which "auto" chose; else None.
        recording: whether states carry a tape of what undoing them needs.
        y0: leaves of the second state at the start; empty where both start from z0.
    """

    evaluations_per_step: ClassVar[int] = 2

    def __init__(
        self,
        betas: Betas,
        half_steps: HalfSteps,
        estimated: AutomaticBeta | None = None,
        *,
        recording: bool = False,
        y0: Leaves = (),
    ) -> None:
        self.betas, self.half_steps, self.estimated, self._y0 = betas, half_steps, estimated, y0
        self.arithmetic = half_steps.arithmetic
        self._recording = recording

    def __repr__(self) -> str:
        return f"ReversibleIteration({self.betas!r}, {self.arithmetic!r})"

    @property
    def repeats(self) -> bool:
        """Whether undoing a step returns the very bits, so that f has to be evaluated alike forward and backward."""
        return isinstance(self.arithmetic, Bitwise)

    @property
    def compiled(self) -> bool:
        """Whether half steps are compiled together with f."""
        return isinstance(self.half_steps, CompiledHalfSteps)

    def uncompiled(self) -> "ReversibleIteration":
        """Return this iteration with half steps that are not compiled together with f."""
        if not self.compiled:
            return self
        return ReversibleIteration(self.betas, FloatingHalfSteps(self.arithmetic), self.estimated, y0=self._y0)

    def recording(self) -> "ReversibleIteration":
        """Return this iteration with states that carry a tape of what undoing them needs."""
        return ReversibleIteration(self.betas, self.half_steps, self.estimated, recording=True, y0=self._y0)

    def repeating(self, state: Coupled) -> "ReversibleIteration":
        """Return this iteration with the betas that led to `state`, also where it chose them as it went."""
        betas = RecordedBetas(state.pace[0]) if state.pace else self.betas
        return ReversibleIteration(betas, self.half_steps, self.estimated)

    def starting(self, y0: Leaves) -> "ReversibleIteration":
        """Return this iteration with other leaves of the second state at the start."""
        return ReversibleIteration(self.betas, self.half_steps, self.estimated, y0=y0)

    def init(self, z0: Leaves) -> Coupled:
        """Return y_0, which is z_0 if no other was given, and z_0 in the state dtype.

        Raises:
            ValueError: the state dtype is narrower than a leaf of z0.
        """
        batched = bool(sample_shape(z0))
        # Only an arithmetic that takes one beta looks at it here.
        beta = self.betas.beta if isinstance(self.betas, ConstantBeta) else math.nan
        y, z = (
            tuple(self.arithmetic.start(w, leaf.dtype, batched, beta) for w, leaf in zip(wide, z0, strict=True))
            for wide in self._wide(z0)
        )
        memory = self.arithmetic.memory if isinstance(self.arithmetic, Bitwise) else None
        tape = (Tape(memory),) if self._recording and self.repeats else ()
        return Coupled(y, z, tape, self.betas.pace(z0))

    def step(self, f: Evaluate, state: Coupled, value: Leaves, n: int) -> Coupled:
        """Return the coupled states after one step, given f(z_n)."""
        return self._step(f, state, value, n)

    def advance(self, f: Evaluate, state: Coupled, n: int) -> Coupled:
        """Return the state after step n, in place or by compiled half steps where that can be."""
        known = state.pace or (n == 0 and self.arithmetic.fits)
        return self._step(f, state, f(self.estimate(state)) if known else None, n)

    def _step(self, f: Evaluate, state: Coupled, value: Leaves | None, n: int) -> Coupled:
        y, z, pace = state.y, state.z, state.pace
        if n == 0 and value is not None:
            y, z = (tuple(map(self.arithmetic.fit, states, value)) for states in (y, z))
        if pace and value is not None:
            pace = (pace[0].after(value, self.half_steps.values(z), n),)
        beta_y, beta_z = (pace[0].beta, pace[0].beta) if pace else self.betas.of_step(n)
        y, lost_y = self.half_steps.take(f, y, z, value, beta_y, n)
        z, lost_z = self.half_steps.take(f, z, y, None if value is None else f(self.half_steps.values(y)), beta_z, n)
        return Coupled(y, z, tuple(tape.push(lost_y).push(lost_z) for tape in state.tape), pace)

    def estimate(self, state: Coupled) -> Leaves:
        """Return z."""
        return self.half_steps.values(state.z)

    def coupled(self, state: Coupled) -> Leaves:
        """Return y."""
        return self.half_steps.values(state.y)

    def undo_z(self, z: States, value_at_y: Leaves, lost: Entry | None = None, n: int | None = None) -> States:
        """Return z_n from z_{n+1} and f(y_{n+1}).

        Args:
            z: z_{n+1}.
            value_at_y: f(y_{n+1}).
            lost: what the tape says the half step lost.
            n: index of the step; may be left out where all steps have one beta.

        Raises:
            ValueError: the betas depend on the step and n is left out.
        """
        return self.half_steps.undo(z, value_at_y, lost, self._betas_of(n)[1])

    def undo_y(self, y: States, value_at_z: Leaves, lost: Entry | None = None, n: int | None = None) -> States:
        """Return y_n from y_{n+1} and f(z_n); the arguments are those of `undo_z`."""
        return self.half_steps.undo(y, value_at_z, lost, self._betas_of(n)[0])

    def _betas_of(self, n: int | None) -> tuple[Beta, Beta]:
        if n is None and not isinstance(self.betas, ConstantBeta):
            raise ValueError("the betas differ from step to step, so give n, the index of the step.")
        return self.betas.of_step(n or 0)

    def relaxation(self, state: Coupled) -> float | Schedule | torch.Tensor | None:
        """Return the betas with which the state was reached, as `Solution.beta` has them."""
        if state.pace:
            return state.pace[0].record
        if isinstance(self.betas, ConstantBeta):
            return self.betas.beta
        return self.betas.schedule if isinstance(self.betas, ScheduledBetas) else None

    def out_of_range(self, state: Coupled) -> torch.Tensor | None:
        """Return, per sample, whether a state left the range that the arithmetic holds; None where it has none."""
        flags = [self.arithmetic.out_of_range(leaf) for leaf in (*state.y, *state.z)]
        present = [flag for flag in flags if flag is not None]
        return torch.stack(present).any(dim=0) if present else None

    def returned(self, state: Coupled, z0: Leaves) -> torch.Tensor | None:
        """Return whether the rebuilt start is z0 to the bit, a 0-d bool tensor; None where that is not promised."""
        y0, wide = self._wide(z0)
        flags = [self.arithmetic.returns(leaf, w) for leaf, w in zip((*state.y, *state.z), (*y0, *wide), strict=True)]
        present = [flag for flag in flags if flag is not None]
        return torch.stack(present).all() if present else None

    def _wide(self, z0: Leaves) -> tuple[Leaves, Leaves]:
        """Return the leaves from which y and z start, in the state dtype."""
        z = tuple(leaf.to(self.arithmetic.dtype(leaf)) for leaf in z0)
        if not self._y0:
            return z, z
        y0 = self._y0 if torch.is_grad_enabled() else tuple(leaf.detach() for leaf in self._y0)
        return tuple(leaf.to(self.arithmetic.dtype(leaf)) for leaf in y0), z


def _betas(beta: Relaxation, max_steps: int) -> Betas:
    if isinstance(beta, tuple):
        return ScheduledBetas(beta, max_steps)
    return AdaptiveBetas(max_steps) if isinstance(beta, str) else ConstantBeta(beta)


def _half_steps(arithmetic: Arithmetic, compile: bool) -> HalfSteps:
    if not isinstance(arithmetic, Floating):
        return LeafwiseHalfSteps(arithmetic)
    return CompiledHalfSteps(arithmetic) if compile else FloatingHalfSteps(arithmetic)


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
