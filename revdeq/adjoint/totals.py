"""Sums of gradients over many evaluations of f."""

import torch
from torch import _foreach_add_ as foreach_add_  # pyright: ignore[reportPrivateImportUsage]

from revdeq.function import PartialLeaves


class Totals:
    """Sums of the gradients of the inputs over many evaluations, at least as precise as autograd's own.

    Args:
        count: number of inputs.
    """

    def __init__(self, count: int) -> None:
        self._sums: list[torch.Tensor | None] = [None] * count
        self._dtypes: list[torch.dtype | None] = [None] * count

    def add(self, parts: PartialLeaves) -> None:
        """Add the gradients of one evaluation; None stands for an exact zero."""
        both: list[tuple[torch.Tensor, torch.Tensor]] = []
        for i, part in enumerate(parts):
            if part is None:
                continue
            total = self._sums[i]
            if total is None:
                self._dtypes[i] = part.dtype
                # A sum of many parts in a 16-bit dtype would lose most of them; a fresh tensor, since parts may alias.
                self._sums[i] = part.to(torch.promote_types(part.dtype, torch.float32), copy=True)
            else:
                both.append((total, part))
        if both:
            foreach_add_([t for t, _ in both], [p.to(t.dtype) for t, p in both])

    def sums(self) -> PartialLeaves:
        """Return the sums in the dtypes of the parts; None where every part was None."""
        return tuple(
            None if total is None else total.to(dtype) for total, dtype in zip(self._sums, self._dtypes, strict=True)
        )
