"""The sections of the report, in the order in which it shows them; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import BuiltSection, Section
from reports.dossier import Dossier
from reports.sections.convergence import SECTION as _convergence
from reports.sections.cost import SECTION as _cost
from reports.sections.gradients import SECTION as _gradients
from reports.sections.measurements import SECTION as _measurements
from reports.sections.method import SECTION as _method
from reports.sections.roundoff import SECTION as _roundoff
from reports.sections.trust import SECTION as _trust
from reports.sections.verdict import SECTION as _verdict


SECTIONS: tuple[Section, ...] = (
    _verdict,
    _trust,
    _gradients,
    _convergence,
    _roundoff,
    _cost,
    _measurements,
    _method,
)


def build_sections(dossier: Dossier, sections: Sequence[Section] = SECTIONS) -> tuple[BuiltSection, ...]:
    """Build every section from the runs, numbered from 1."""
    return tuple(
        BuiltSection(number, section.identifier, section.title, tuple(section.build(dossier)))
        for number, section in enumerate(sections, start=1)
    )
