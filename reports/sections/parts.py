"""What several sections do alike: one figure per device and precision, all but the widest folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from reports.content import Block, Drawing, Fold
from reports.figures.key import precision_order
from reports.figures.svg import figure_name
from reports.text import precision
from verify.result import Curve


class Draw(Protocol):
    """A figure of some curves."""

    def __call__(self, curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
        """Draw them."""
        ...


def nothing(curves: Sequence[Curve]) -> str:
    """The conclusion where there is none to draw."""
    del curves
    return ""


def by_precision(
    curves: Sequence[Curve], draw: Draw, name: str, caption: str, conclude: Callable[[Sequence[Curve]], str] = nothing
) -> list[Block]:
    """A figure for each device and precision; all but the widest of a device are folded.

    Args:
        curves: lines of one kind.
        draw: draws those of one device and precision.
        name: start of the figures' names.
        caption: start of their captions, without a full stop.
        conclude: curves of one figure -> what follows from them, a sentence with a space before it, or "".
    """
    blocks: list[Block] = []
    for device in sorted({curve.device for curve in curves}):
        own = [curve for curve in curves if curve.device == device]
        order = precision_order(precision(curve.dtype, curve.state_dtype) for curve in own)
        own_of = {kind: [c for c in own if precision(c.dtype, c.state_dtype) == kind] for kind in order}
        figures = [
            draw(
                own_of[kind],
                name=figure_name(name, device, kind),
                caption=f"{caption}: {kind}, {device}.{conclude(own_of[kind])}",
            )
            for kind in order
        ]
        blocks.append(figures[0])
        if figures[1:]:
            blocks.append(Fold(f"The same in {'; '.join(order[1:])}, on {device}", tuple(figures[1:])))
    return blocks
