"""What a section of the report is made of: blocks that know their meaning and not their markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias


if TYPE_CHECKING:
    from reports.dossier import Dossier


Level: TypeAlias = Literal["good", "bad", "note"]


@dataclass(frozen=True)
class Prose:
    """One paragraph; `text` may be a `markupsafe.Markup`, and is escaped otherwise."""

    text: str


@dataclass(frozen=True)
class Heading:
    """Heading of a part of a section; `identifier` is its anchor, unique in the page."""

    identifier: str
    text: str


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be overlooked."""

    level: Level
    text: str


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value, read as a list of definitions; `wide` gives each a line of its own."""

    pairs: tuple[tuple[str, str], ...]
    wide: bool = False


@dataclass(frozen=True)
class Grid:
    """A small table.

    Args:
        caption: one sentence; what a row is.
        columns: the headings, with units.
        rows: one tuple of cells per row, as long as `columns`.
        levels: one level per row, or empty where no row is marked.
        numeric: the indices of the columns that are aligned to the right.

    Raises:
        ValueError: a row or the levels have another length than what they belong to.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    levels: Sequence[Level] = ()
    numeric: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of the table {self.caption!r} has {len(row)} cells, not {len(self.columns)}")
        if self.levels and len(self.levels) != len(self.rows):
            raise ValueError(f"the table {self.caption!r} has {len(self.levels)} levels for {len(self.rows)} rows")


@dataclass(frozen=True)
class Drawing:
    """A figure: inline SVG with a caption that says what is seen."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class MeasurementTable:
    """The table that sorts and filters; `columns` are its headings and `data` is JSON, already escaped for a script."""

    caption: str
    columns: tuple[str, ...]
    numeric: frozenset[int]
    first_rows: tuple[tuple[str, ...], ...]
    first_levels: Sequence[Level]
    total: int
    data: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown on demand on the screen, and always on paper."""

    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Prose | Heading | Notice | Facts | Grid | Drawing | MeasurementTable | Fold


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Args:
        identifier: anchor of the section in the page.
        title: its heading.
        build: makes the blocks from everything that was measured.
    """

    identifier: str
    title: str
    build: Callable[[Dossier], Sequence[Block]]


@dataclass(frozen=True)
class BuiltSection:
    """A section with its number and blocks."""

    number: int
    identifier: str
    title: str
    blocks: tuple[Block, ...] = field(default_factory=tuple)
