"""The leaves of a state as one vector a sample, for solvers that combine earlier states."""

import math

import torch

from revdeq._residual import sample_shape
from revdeq._tree import Leaves


def widened(leaves: Leaves) -> Leaves:
    """Return the leaves in float32 where they are narrower: combinations of many states need the digits."""
    return tuple(leaf.to(torch.promote_types(leaf.dtype, torch.float32)) for leaf in leaves)


def as_vectors(leaves: Leaves) -> torch.Tensor:
    """Return all components of each sample side by side, in the widest dtype among the leaves.

    Args:
        leaves: tensors of one state.

    Returns:
        A tensor of shape (B, d); B = 1 where the state is one sample.
    """
    samples, sizes = _layout(leaves)
    dtype = leaves[0].dtype
    for leaf in leaves[1:]:
        dtype = torch.promote_types(dtype, leaf.dtype)
    return torch.cat([leaf.reshape(samples, d).to(dtype) for leaf, d in zip(leaves, sizes, strict=True)], dim=1)


def as_leaves(vectors: torch.Tensor, like: Leaves) -> Leaves:
    """Return the leaves whose `as_vectors` is `vectors`.

    Args:
        vectors: tensor of shape (B, d).
        like: leaves that give the shapes and dtypes.
    """
    parts = vectors.split(_layout(like)[1], dim=1)
    return tuple(part.reshape(leaf.shape).to(leaf.dtype) for part, leaf in zip(parts, like, strict=True))


def scalar_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of inner products and of the small systems made of them: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def magnitude(vectors: torch.Tensor) -> torch.Tensor:
    """Return the largest absolute component of each sample, 1 where there is none but zeros, as a constant.

    Divided by it, vectors of any scale have products that neither overflow nor underflow.

    Args:
        vectors: tensor of shape (B, ...).

    Returns:
        A tensor of shape (B, 1, ...) of as many dimensions.
    """
    inner = tuple(range(1, vectors.ndim))
    if vectors.numel() == 0:
        return vectors.new_ones(vectors.shape[:1] + (1,) * len(inner))
    largest = vectors.detach().abs().amax(dim=inner, keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def pushed(history: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
    """Return the history without its oldest entry and with a new one at the end.

    Args:
        history: tensor of shape (B, m, d), oldest first.
        newest: tensor of shape (B, d).
    """
    return torch.cat([history[:, 1:], newest.unsqueeze(1)], dim=1)


def _layout(leaves: Leaves) -> tuple[int, list[int]]:
    """Return the number of samples, and of the components of one sample in each leaf."""
    shape = sample_shape(leaves)
    return math.prod(shape), [math.prod(leaf.shape[len(shape) :]) for leaf in leaves]
