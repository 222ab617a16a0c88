"""The reversible fixed-point iteration: two coupled states, a step that can be undone."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch

from revdeq.arithmetic.floating import half_step, undo_half_step
from revdeq.solver.base import Evaluate, Solver, validated_beta
from revdeq.tree import Leaves


class Coupled(NamedTuple):
    """The two coupled states, in the state dtype."""

    y: Leaves
    z: Leaves


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

    Raises:
        TypeError: beta is not a real number, or state_dtype is not a floating dtype.
        ValueError: beta is NaN, outside (0, 2), or 1.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
        Young, Iterative methods for solving partial difference equations of elliptic type, 1954,
        DOI 10.1090/S0002-9947-1954-0059635-7 (the over-relaxation of a 2-cyclic system).
    """

    evaluations_per_step: ClassVar[int] = 2

    def __init__(self, beta: float, *, state_dtype: torch.dtype | None = None) -> None:
        self.beta = validated_beta(beta, below=2.0, excluded=(1.0,))
        if state_dtype is not None and not (isinstance(state_dtype, torch.dtype) and state_dtype.is_floating_point):
            raise TypeError(f"state_dtype is {state_dtype!r}; give a floating dtype such as torch.float64.")
        self.state_dtype = state_dtype

    def __repr__(self) -> str:
        return f"Reversible(beta={self.beta!r}, state_dtype={self.state_dtype})"

    def init(self, z0: Leaves) -> Coupled:
        """Return y_0 = z_0 in the state dtype.

        Raises:
            ValueError: the state dtype is narrower than a leaf of z0.
        """
        wide = tuple(leaf.to(self._state_dtype(leaf)) for leaf in z0)
        return Coupled(wide, wide)

    def step(self, f: Evaluate, state: Coupled, value: Leaves, n: int) -> Coupled:
        """Return the coupled states after one step, given f(z_n)."""
        y = _each(half_step, state.y, value, self.beta)
        z = _each(half_step, state.z, f(y), self.beta)
        return Coupled(y, z)

    def estimate(self, state: Coupled) -> Leaves:
        """Return z."""
        return state.z

    def coupled(self, state: Coupled) -> Leaves:
        """Return y."""
        return state.y

    def undo_z(self, z: Leaves, value_at_y: Leaves) -> Leaves:
        """Return z_n from z_{n+1} and f(y_{n+1})."""
        return _each(undo_half_step, z, value_at_y, self.beta)

    def undo_y(self, y: Leaves, value_at_z: Leaves) -> Leaves:
        """Return y_n from y_{n+1} and f(z_n)."""
        return _each(undo_half_step, y, value_at_z, self.beta)

    def _state_dtype(self, leaf: torch.Tensor) -> torch.dtype:
        if self.state_dtype is None:
            has_float64 = leaf.device.type != "mps"
            return torch.float64 if has_float64 else torch.promote_types(leaf.dtype, torch.float32)
        if torch.promote_types(self.state_dtype, leaf.dtype) != self.state_dtype:
            raise ValueError(
                f"state_dtype is {self.state_dtype} but z0 has {leaf.dtype}; the states must be at least as "
                f"wide as z0, so give {leaf.dtype} or a wider dtype."
            )
        return self.state_dtype


def _each(
    operation: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor], states: Leaves, values: Leaves, beta: float
) -> Leaves:
    return tuple(operation(state, value, beta) for state, value in zip(states, values, strict=True))
