"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math
import re
import unicodedata

from verify.json_file import printable


_SPECIAL = re.compile(r"[^\x20-\x7e\n\t]")

ABSENT = "\u2013"
"""What stands in a cell for which there is no number: an en dash."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits; None is a dash, NaN and infinity are words in capitals.

    NaN stands out on purpose: it must never look like an empty cell.
    """
    if value is None:
        return ABSENT
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "INF" if value > 0 else "-INF"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value)}"
    return f"{value:.{digits}g}"


def bits(value: float | None) -> str:
    """A relative error as the number of bits that are right: -log2(value), with one decimal.

    An error of exactly 0 is "all"; an error of 1 or more is "0".
    """
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return number(value)
    if value == 0.0:
        return "all"
    return f"{max(0.0, -math.log2(value)):.1f}"


def binary_size(count: float | None) -> str:
    """A number of bytes with a binary unit."""
    if count is None:
        return ABSENT
    if not math.isfinite(count):
        return number(count)
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024.0:
            return f"{size:.4g} {unit}"
        size /= 1024.0
    return f"{size:.4g} GiB"


def legible(text: str) -> str:
    """`text` with what does not print written as escapes, line feeds, tabs and spaces apart: it shows all there is."""
    return _SPECIAL.sub(lambda found: found[0] if unicodedata.category(found[0]) == "Zs" else printable(found[0]), text)


def plural(count: int, singular: str, many: str | None = None) -> str:
    """A count with its noun: "1 case", "2 cases"; `many` where adding an s is wrong."""
    return f"{count} {singular if count == 1 else (many or singular + 's')}"


def precision(dtype: str, state_dtype: str, solver: str = "") -> str:
    """The dtype of f, and the state's where it is another one: "float32 f, float64 state".

    Integer states are another one whatever their dtype: those of the solver "reversible-bitwise".
    """
    if solver.endswith("-bitwise"):
        return f"{dtype} f, bitwise state"
    if not state_dtype or state_dtype == dtype:
        return dtype
    return f"{dtype} f, {state_dtype} state"
