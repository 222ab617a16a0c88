"""Checks of what several cells are made with."""

import torch


def validated_dtype(dtype: object) -> torch.dtype | None:
    """Return `dtype` if it is None or a real floating dtype.

    Args:
        dtype: what the user gave for the parameters.

    Raises:
        TypeError: it is something else.
    """
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    raise TypeError(f"dtype is {dtype!r}; it must be a real floating dtype such as torch.float32, or None.")
