"""The reversible fixed-point iteration: two coupled states, a step that can be undone."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch

from revdeq.arithmetic.base import Arithmetic, LeafState
from revdeq.arithmetic.bitwise import Bitwise
from revdeq.arithmetic.floating import Floating
from revdeq.arithmetic.tape import Entry, Tape
from revdeq.residual import sample_shape
from revdeq.solver.base import Evaluate, Solver, validated_beta
from revdeq.tree import Leaves


class Coupled(NamedTuple):
    """The two coupled states, leaf by leaf as the arithmetic keeps them.

    Attributes:
        y: tensors of the state dtype in floating arithmetic, `Quantised` in bitwise arithmetic.
        z: likewise.
        tape: what the half steps so far would have lost, where a backward pass will need it; else empty.
    """

    y: tuple[LeafState, ...]
    z: tuple[LeafState, ...]
    tape: tuple[Tape, ...] = ()


class Reversible(Solver):
    """The reversible iteration

        y_{n+1} = (1 - beta) y_n + beta f(z_n)          z_n = (z_{n+1} - beta f(y_{n+1})) / (1 - beta)
        z_{n+1} = (1 - beta) z_n + beta f(y_{n+1})      y_n = (y_{n+1} - beta f(z_n)) / (1 - beta)

    from y_0 = z_0. It is successive over-relaxation with omega = beta on the system {y = f(z), z = f(y)}; over all maps
    with Lipschitz constant k it converges iff 0 < beta < 2 / (1 + k). See `revdeq.rates` for how fast.

    Args:
        beta: relaxation parameter, 0 < beta < 2, not 1.
        state_dtype: dtype of the states; None for float64 where z0 is narrower and the device has float64. f is always
            called in the dtype of z0. A wider state postpones the loss of digits in reverse.
        arithmetic: "floating", or "bitwise" for states that are undone to the bit at any depth, for beta = 1 - 1/m and
            1 + 1/m; or a `Bitwise` with a range and resolution of your own.

    Raises:
        TypeError: beta is not a real number, state_dtype is not a floating dtype, or arithmetic is none of the above.
        ValueError: beta is NaN, outside (0, 2), or 1, or has no bitwise form; state_dtype with bitwise arithmetic.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
        Young, Iterative methods for solving partial difference equations of elliptic type, 1954,
        DOI 10.1090/S0002-9947-1954-0059635-7 (the over-relaxation of a 2-cyclic system).
    """

    evaluations_per_step: ClassVar[int] = 2

    def __init__(
        self,
        beta: float,
        *,
        state_dtype: torch.dtype | None = None,
        arithmetic: Literal["floating", "bitwise"] | Arithmetic = "floating",
    ) -> None:
        self.beta = validated_beta(beta, below=2.0, excluded=(1.0,))
        self.state_dtype = state_dtype
        self.arithmetic = _arithmetic(arithmetic, state_dtype)
        self.arithmetic.check(self.beta)
        self._recording = False

    def __repr__(self) -> str:
        return f"Reversible(beta={self.beta!r}, arithmetic={self.arithmetic!r})"

    @property
    def repeats(self) -> bool:
        """Whether undoing a step returns the very bits, so that f has to be evaluated alike forward and backward."""
        return isinstance(self.arithmetic, Bitwise)

    def recording(self) -> "Reversible":
        """Return this solver with states that carry a tape of what undoing them needs."""
        copy = Reversible(self.beta, state_dtype=self.state_dtype, arithmetic=self.arithmetic)
        copy._recording = True
        return copy

    def init(self, z0: Leaves) -> Coupled:
        """Return y_0 = z_0 in the state dtype.

        Raises:
            ValueError: the state dtype is narrower than a leaf of z0.
        """
        batched = bool(sample_shape(z0))
        wide = [leaf.to(self.arithmetic.dtype(leaf)) for leaf in z0]
        y, z = (
            tuple(self.arithmetic.start(w, leaf.dtype, batched, self.beta) for w, leaf in zip(wide, z0, strict=True))
            for _ in range(2)
        )
        memory = self.arithmetic.memory if isinstance(self.arithmetic, Bitwise) else None
        return Coupled(y, z, (Tape(memory),) if self._recording and self.repeats else ())

    def step(self, f: Evaluate, state: Coupled, value: Leaves, n: int) -> Coupled:
        """Return the coupled states after one step, given f(z_n)."""
        if n == 0:
            state = state._replace(y=self._fit(state.y, value), z=self._fit(state.z, value))
        y, lost_y = self._half_step(state.y, value, n)
        z, lost_z = self._half_step(state.z, f(self.values(y)), n)
        return Coupled(y, z, tuple(tape.push(lost_y).push(lost_z) for tape in state.tape))

    def estimate(self, state: Coupled) -> Leaves:
        """Return z."""
        return self.values(state.z)

    def coupled(self, state: Coupled) -> Leaves:
        """Return y."""
        return self.values(state.y)

    def undo_z(self, z: tuple[LeafState, ...], value_at_y: Leaves, lost: Entry | None = None) -> tuple[LeafState, ...]:
        """Return z_n from z_{n+1} and f(y_{n+1}), and from what the tape says its half step lost."""
        return self._undo_half_step(z, value_at_y, lost)

    def undo_y(self, y: tuple[LeafState, ...], value_at_z: Leaves, lost: Entry | None = None) -> tuple[LeafState, ...]:
        """Return y_n from y_{n+1} and f(z_n), and from what the tape says its half step lost."""
        return self._undo_half_step(y, value_at_z, lost)

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

    def _half_step(self, states: tuple[LeafState, ...], values: Leaves, n: int) -> tuple[tuple[LeafState, ...], Entry]:
        pairs = [self.arithmetic.half_step(s, v, self.beta, n) for s, v in zip(states, values, strict=True)]
        return tuple(state for state, _ in pairs), tuple(lost for _, lost in pairs)

    def _undo_half_step(
        self, states: tuple[LeafState, ...], values: Leaves, lost: Entry | None
    ) -> tuple[LeafState, ...]:
        remainders = (None,) * len(states) if lost is None else lost
        return tuple(
            self.arithmetic.undo_half_step(state, value, self.beta, remainder)
            for state, value, remainder in zip(states, values, remainders, strict=True)
        )


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
