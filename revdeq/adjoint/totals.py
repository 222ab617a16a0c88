"""Sums of gradients over many evaluations of f."""

import torch
from torch import _foreach_add_ as foreach_add_  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]

from revdeq.function.linearisation import PartialLeaves


class Totals:
    """Sums of the gradients of the inputs over many evaluations, at least as precise as autograd's own.

    Args:
        count: number of inputs.
    """

    def __init__(self, count: int) -> None:
        # The first part may be anybody's tensor; the second makes a sum, which is ours to add to.
        self._sums: list[torch.Tensor | None] = [None] * count
        self._ours = [False] * count
        self._dtypes: list[torch.dtype | None] = [None] * count

    def copy(self) -> "Totals":
        """Return the sums so far, which adding to these does not change."""
        copied = Totals(len(self._sums))
        copied._sums = [
            total.clone() if total is not None and ours else total
            for total, ours in zip(self._sums, self._ours, strict=True)
        ]
        copied._ours, copied._dtypes = list(self._ours), list(self._dtypes)
        return copied

    def add(self, parts: PartialLeaves) -> None:
        """Add the gradients of one evaluation; None stands for an exact zero."""
        sums: list[torch.Tensor] = []
        added: list[torch.Tensor] = []
        for i, part in enumerate(parts):
            if part is None:
                continue
            total = self._sums[i]
            if total is None:
                self._sums[i], self._dtypes[i] = part, part.dtype
            elif not self._ours[i]:
                # A sum of many parts in a 16-bit dtype would lose most of them.
                self._sums[i] = total.to(torch.promote_types(total.dtype, torch.float32)).add(part)
                self._ours[i] = True
            else:
                sums.append(total)
                added.append(part if part.dtype == total.dtype else part.to(total.dtype))
        if sums:
            foreach_add_(sums, added)

    def sums(self) -> PartialLeaves:
        """Return the sums in the dtypes of the parts; None where every part was None."""
        return tuple(
            None if total is None else total.to(dtype) for total, dtype in zip(self._sums, self._dtypes, strict=True)
        )
