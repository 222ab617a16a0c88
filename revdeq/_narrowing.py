"""How a wide state is handed to f: rounded to f's dtype, in a way that reversal repeats.

NOTE [Ties]
Reversal rebuilds a float64 state with an error of a few units roundoff; f, which sees it rounded to a narrower dtype,
meets the very number of the forward pass unless a boundary of that rounding lies between the two. For round betas
states lie exactly on boundaries: with beta = 0.9 and z0 and f(z0) on the narrow grid, y_1 = z0 + 0.9 (f(z0) - z0) is
halfway between two narrow numbers for one in ten differences. Rounding x + 2^-(p+6) x instead of x, p the bits of the
narrow dtype, moves the boundaries away from those numbers. Numbers that the narrow dtype holds stay as they are, and
the rounding error is at most 1/2 + 1/64 units in the last place. Measured over seven cells in float32 with 2 steps, it
brought the share of reversals that must be computed again from .81 to 0 at beta 0.9, from .79 to 0 at 1.1 and from .26
to 0 at 0.7.
"""

import torch


# Bits between the narrow dtype's last place and the shift: small against a rounding, great against what reversal adds.
_SHIFT_BITS = 6


def narrow(leaf: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the leaf in a dtype that is narrower or the same; its derivative is the identity.

    Args:
        leaf: tensor of a state, any floating dtype.
        dtype: the dtype of z0's leaf; see NOTE [Ties].

    Returns:
        The leaf itself where it has the dtype already.
    """
    if leaf.dtype == dtype:
        return leaf
    roundoff = torch.finfo(dtype).eps
    if torch.finfo(leaf.dtype).eps >= roundoff:
        return leaf.to(dtype)
    shift = roundoff * 2.0 ** -(_SHIFT_BITS + 1)
    return leaf.add(leaf.detach() if leaf.requires_grad else leaf, alpha=shift).to(dtype)
