"""The remainders of the half steps taken so far, as one object that a state carries from step to step."""

from __future__ import annotations

import torch


Entry = tuple[torch.Tensor | None, ...]
"""The remainders of one half step, one for each leaf; None where a half step lost nothing."""


class Tape:
    """A list of entries that grows without changing: `push` returns a longer tape and leaves this one as it is.

    Args:
        memory: greatest size in bytes; None for no limit.
    """

    def __init__(self, memory: int | None) -> None:
        self._memory = memory
        self._before: Tape | None = None
        self._entry: Entry = ()
        self.num_bytes = 0

    def push(self, entry: Entry) -> Tape:
        """Return the tape with one more entry.

        Raises:
            ValueError: the tape outgrows its memory.
        """
        longer = Tape(self._memory)
        longer._before, longer._entry = self, entry
        longer.num_bytes = self.num_bytes + sum(part.numel() for part in entry if part is not None)
        if self._memory is not None and longer.num_bytes > self._memory:
            raise ValueError(
                f"the remainders of arithmetic='bitwise' outgrow memory={self._memory} bytes at half step "
                f"{len(longer)}; take fewer steps, give Bitwise(memory=...) more bytes, or use a beta of 0.5, 0.75, "
                "1.25 or 1.5 with a coarser resolution, whose first steps need no tape."
            )
        return longer

    def __len__(self) -> int:
        return len(self.entries())

    def entries(self) -> list[Entry]:
        """Return the entries, the first pushed first."""
        found: list[Entry] = []
        tape = self
        while tape._before is not None:
            found.append(tape._entry)
            tape = tape._before
        return found[::-1]
