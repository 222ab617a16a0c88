"""The half step of the reversible iteration and its inverse in floating-point arithmetic."""

import torch


def half_step(state: torch.Tensor, value: torch.Tensor, beta: float) -> torch.Tensor:
    """Return `(1 - beta) state + beta value`, one relaxed half step.

    Args:
        state: tensor in the state dtype.
        value: f at the other state; the same shape, in the state dtype or a narrower one, which is widened exactly.
        beta: relaxation parameter.

    Returns:
        A new tensor in the state dtype.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917, equation of the forward pass.
    """
    return state.mul(1.0 - beta).add_(value, alpha=beta)


def undo_half_step(state: torch.Tensor, value: torch.Tensor, beta: float) -> torch.Tensor:
    """Return `(state - beta value) / (1 - beta)`, the state from which `half_step` with the same value came.

    The division multiplies every rounding error so far by 1 / |1 - beta|: see `Health.reconstruction_error`.

    Args:
        state: tensor in the state dtype.
        value: the very value that the half step added.
        beta: relaxation parameter, not 1.

    Returns:
        A new tensor in the state dtype.
    """
    return state.sub(value, alpha=beta).div_(1.0 - beta)
