"""Fingerprints of tensors: 64 bits that tell whether two tensors are equal to the bit, without keeping either.

NOTE [Fingerprints]
The bytes of a tensor are read as 64-bit words x_i, and the fingerprint is sum_i w_i x_i modulo 2^64 with fixed odd
weights w_i. A single word that differs always changes it, because an odd factor has an inverse modulo 2^64; several
that differ cancel for about one in 2^64 choices of weights. Integer sums do not depend on the order of summation, so a
fingerprint is the same on every device and for every memory layout.
"""

import torch
from torch import Tensor

from revdeq._tree import Leaves


# The multiplier of Steele, Lea and Flood's SplitMix64 (doi:10.1145/2714064.2660195), as a signed number.
_GOLDEN = -7046029254386353131
_MIX = -4658895280553007687
_KEPT_WEIGHTS: dict[tuple[torch.device, int], Tensor] = {}
_MOST_KEPT = 16


def fingerprint(leaves: Leaves) -> Tensor:
    """Return the fingerprint of a few tensors: an int64 tensor of shape () on their device; it is not waited for.

    Args:
        leaves: tensors of floating dtypes; their values count, not their strides.
    """
    parts = [_words_of(leaf) for leaf in leaves]
    words = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (words * _weights(words)).sum()


def _words_of(leaf: Tensor) -> Tensor:
    """Return the bytes of a tensor as int64, padded with zeros."""
    flat = leaf.detach().reshape(-1)
    if not flat.is_contiguous():
        flat = flat.contiguous()
    per_word = 8 // flat.element_size()
    if flat.numel() % per_word or flat.storage_offset() % per_word:
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % per_word))
    return flat.view(torch.int64)


def _weights(words: Tensor) -> Tensor:
    """Return odd weights, made on the device so that nothing is copied to it."""
    key = (words.device, words.numel())
    found = _KEPT_WEIGHTS.get(key)
    if found is not None and type(words) is Tensor:
        return found
    mixed = (torch.arange(1, words.numel() + 1, device=words.device) * _GOLDEN).bitwise_xor(_GOLDEN >> 7)
    made = ((mixed >> 29) ^ mixed).mul_(_MIX).bitwise_or_(1)
    capturing = words.is_cuda and torch.cuda.is_current_stream_capturing()
    # Memory made in the capture of a CUDA graph, or without values, is nobody else's to use.
    if type(made) is Tensor and not capturing and not made.is_inference() and made.device.type != "meta":
        if len(_KEPT_WEIGHTS) >= _MOST_KEPT:
            del _KEPT_WEIGHTS[next(iter(_KEPT_WEIGHTS))]
        _KEPT_WEIGHTS[key] = made
    return made


_BLOCKS = 64


def sketch(leaves: Leaves, lead: int = 0) -> Tensor:
    """Return sums of the components with fixed signs over 64 parts of the tensors: float64, shape (..., leaves, 64).

    For two tensors that differ by d, the squares of the differences of their sketches add up to |d|^2 in the mean over
    signs, so that a sketch says how far apart they are, where a fingerprint says whether they are. For any d but some
    chosen with the signs at hand, the chance that the sum is below |d|^2 / 100 is negligible.

    Args:
        leaves: tensors of floating dtypes.
        lead: number of first dimensions, which all leaves share, over which there is a sketch of each entry.
    """
    return torch.stack([_sketch(leaf, lead) for leaf in leaves], dim=-2)


def _sketch(leaf: Tensor, lead: int) -> Tensor:
    flat = torch.nan_to_num(leaf.detach().unsqueeze(-1).flatten(lead).to(torch.float64))
    flat = torch.nn.functional.pad(flat, (0, -flat.shape[-1] % _BLOCKS))
    words = torch.empty(flat.shape[-1], dtype=torch.int64, device=flat.device)
    signs = 1.0 - 2.0 * ((_weights(words) >> 40) & 1)
    return (flat * signs).unflatten(-1, (_BLOCKS, -1)).sum(dim=-1)
