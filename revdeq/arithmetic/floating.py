"""The half step of the reversible iteration and its inverse in floating-point arithmetic."""

import torch
from torch._C._functorch import peek_interpreter_stack

from revdeq._residual import per_sample
from revdeq.arithmetic.base import Arithmetic


def scaled(leaf: torch.Tensor, factor: float | torch.Tensor) -> torch.Tensor:
    """Return `factor leaf` in the leaf's dtype.

    Args:
        leaf: tensor with the samples in dimension 0.
        factor: a number, or a tensor with one entry a sample.
    """
    if isinstance(factor, torch.Tensor):
        return (leaf * per_sample(factor, leaf)).to(leaf.dtype)
    return leaf.mul(factor)


def half_step(
    state: torch.Tensor, value: torch.Tensor, beta: float | torch.Tensor, *, in_place: bool = False
) -> torch.Tensor:
    """Return `(1 - beta) state + beta value`, one relaxed half step.

    Args:
        state: tensor in the state dtype.
        value: f at the other state; the same shape, in the state dtype or a narrower one, which is widened exactly.
        beta: relaxation parameter, or a tensor with one entry a sample.
        in_place: whether the state may be overwritten, which saves a pass over fresh memory.

    Returns:
        A tensor in the state dtype.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917, equation of the forward pass.
    """
    if isinstance(beta, torch.Tensor):
        return (state * per_sample(1.0 - beta, state) + value * per_sample(beta, value)).to(state.dtype)
    kept = state.mul_(1.0 - beta) if in_place else state.mul(1.0 - beta)
    if peek_interpreter_stack():
        return kept.add(value, alpha=beta)  # under vmap the value may be batched where the state is not
    return kept.add_(value, alpha=beta)


def undo_half_step(
    state: torch.Tensor, value: torch.Tensor, beta: float | torch.Tensor, *, in_place: bool = False
) -> torch.Tensor:
    """Return `(state - beta value) / (1 - beta)`, the state from which `half_step` with the same value came.

    The division multiplies every rounding error so far by 1 / |1 - beta|: see `Health.reconstruction_error`.

    Args:
        state: tensor in the state dtype.
        value: the very value that the half step added.
        beta: relaxation parameter, not 1, or a tensor with one entry a sample.
        in_place: whether the state may be overwritten, which saves a pass over fresh memory.

    Returns:
        A tensor in the state dtype.
    """
    if isinstance(beta, torch.Tensor):
        return ((state - value * per_sample(beta, value)) / per_sample(1.0 - beta, state)).to(state.dtype)
    moved = state.sub_(value, alpha=beta) if in_place else state.sub(value, alpha=beta)
    return moved.div_(1.0 - beta)


class Floating(Arithmetic):
    """States in a floating dtype, at least as wide as z0's; a half step undone differs from its start by rounding.

    Args:
        state_dtype: dtype of the states; None for float64 where the device has it.

    Raises:
        TypeError: state_dtype is not a floating dtype.
    """

    def __init__(self, state_dtype: torch.dtype | None = None) -> None:
        if state_dtype is not None and not (isinstance(state_dtype, torch.dtype) and state_dtype.is_floating_point):
            raise TypeError(f"state_dtype is {state_dtype!r}; give a floating dtype such as torch.float64.")
        self.state_dtype = state_dtype

    def __repr__(self) -> str:
        return f"Floating(state_dtype={self.state_dtype})"

    def check(self, beta: float) -> None:
        """Return: every beta but 1 will do."""

    def dtype(self, leaf: torch.Tensor) -> torch.dtype:
        """Return the state dtype.

        Raises:
            ValueError: the state dtype is narrower than the leaf of z0.
        """
        if self.state_dtype is None:
            has_float64 = leaf.device.type != "mps"
            return torch.float64 if has_float64 else torch.promote_types(leaf.dtype, torch.float32)
        if torch.promote_types(self.state_dtype, leaf.dtype) != self.state_dtype:
            raise ValueError(
                f"state_dtype is {self.state_dtype} but z0 has {leaf.dtype}; the states must be at least as "
                f"wide as z0, so give {leaf.dtype} or a wider dtype."
            )
        return self.state_dtype

    def start(self, wide: torch.Tensor, dtype: torch.dtype, batched: bool, beta: float) -> torch.Tensor:
        """Return the leaf as it is."""
        del dtype, batched, beta
        return wide

    def value(self, state: torch.Tensor) -> torch.Tensor:
        """Return the state."""
        return state

    def half_step(
        self, state: torch.Tensor, value: torch.Tensor, beta: float, n: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return `(1 - beta) state + beta value`, rounded, and no remainder."""
        del n
        return half_step(state, value, beta), None

    def undo_half_step(
        self, state: torch.Tensor, value: torch.Tensor, beta: float, remainder: torch.Tensor | None
    ) -> torch.Tensor:
        """Return `(state - beta value) / (1 - beta)`, rounded."""
        del remainder
        return undo_half_step(state, value, beta)
