"""Digits in a small base, packed densely into bytes."""

import functools
import math

import torch


GREATEST_BASE = 256


@functools.cache
def packing(base: int) -> tuple[int, int]:
    """Return `(digits, num_bytes)`: how many digits of the base go into how many bytes, the densest way of at most 7.

    A power of two that divides a byte or a few of them packs without loss, log2(base) bits a digit: (8, 1) for base 2,
    (4, 1) for 4, (8, 3) for 8. Others come close: (5, 1) for 3, 1.6 bits instead of 1.585; (24, 7) for 5, 2.333
    instead of 2.322.

    Args:
        base: 2 <= base <= 256.
    """
    # Seven bytes keep every word below 2^56, so int64 holds it.
    choices = [(_digits(base, size), size) for size in range(1, 8)]
    return min(choices, key=lambda choice: (choice[1] / choice[0], choice[1]))


def packed_bits(base: int) -> float:
    """Return the bits that one packed digit takes, at least log2(base)."""
    digits, size = packing(base)
    return 8 * size / digits


def packed_size(count: int, base: int) -> int:
    """Return the number of bytes that `count` digits take."""
    digits, size = packing(base)
    return math.ceil(count / digits) * size


def pack(values: torch.Tensor, base: int) -> torch.Tensor:
    """Return the digits in bytes.

    Args:
        values: uint8 tensor of digits 0 <= value < base, shape (..., count).
        base: 2 <= base <= 256.

    Returns:
        uint8 tensor of shape (..., packed_size(count, base)).
    """
    digits, size = packing(base)
    if digits == 1:
        return values.clone()
    count = values.shape[-1]
    padded = torch.nn.functional.pad(values, (0, -count % digits)).unflatten(-1, (-1, digits))
    if size == 1:
        return (padded * _powers(base, digits, padded)).sum(-1, dtype=torch.uint8)
    words = (padded.to(torch.int64) * _powers(base, digits, padded, torch.int64)).sum(-1, keepdim=True)
    return torch.bitwise_right_shift(words, _shifts(size, words)).to(torch.uint8).flatten(-2)


def unpack(packed: torch.Tensor, base: int, count: int) -> torch.Tensor:
    """Return the digits that `pack` packed.

    Args:
        packed: uint8 tensor of shape (..., packed_size(count, base)).
        base: 2 <= base <= 256.
        count: how many digits there are.

    Returns:
        uint8 tensor of shape (..., count).
    """
    digits, size = packing(base)
    if digits == 1:
        return packed.clone()
    if size == 1:
        words = packed.unsqueeze(-1)
        powers = _powers(base, digits, words)
    else:
        parts = packed.unflatten(-1, (-1, size)).to(torch.int64)
        words = torch.bitwise_left_shift(parts, _shifts(size, parts)).sum(-1, keepdim=True)
        powers = _powers(base, digits, words, torch.int64)
    if base & (base - 1) == 0:
        shifts = torch.arange(digits, device=packed.device, dtype=words.dtype) * (base.bit_length() - 1)
        values = torch.bitwise_right_shift(words, shifts) & (base - 1)
    else:
        values = torch.div(words, powers, rounding_mode="floor").remainder_(base)
    return values.to(torch.uint8).flatten(-2)[..., :count]


def _digits(base: int, size: int) -> int:
    """Return the greatest number of digits whose every combination fits into `size` bytes."""
    count = 1
    while base ** (count + 1) <= 256**size:
        count += 1
    return count if base <= 256**size else 0


def _powers(base: int, digits: int, like: torch.Tensor, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    # Not from a Python list: that would be a copy from the host, which waits for the device.
    return (base ** torch.arange(digits, device=like.device, dtype=torch.int64)).to(dtype)


def _shifts(size: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(size, device=like.device, dtype=torch.int64) * 8
