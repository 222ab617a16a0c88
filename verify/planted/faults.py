"""Every planted fault by kind, and the controls in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from verify.plan import PlannedFault
from verify.planted import algebra, bitwise, counting, lost, methods, precision, references, runs, state
from verify.planted.base import Honest


SUBJECT_FAULTS: tuple[type[Honest], ...] = (
    *algebra.FAULTS,
    *counting.FAULTS,
    *lost.FAULTS,
    *precision.FAULTS,
    *state.FAULTS,
    *bitwise.FAULTS,
    *methods.FAULTS,
)
REFERENCE_FAULTS = references.FAULTS
RUN_FAULTS: tuple[runs.RunFault, ...] = runs.FAULTS

CONTROLS = {
    Honest.name: Honest.description,
    "honest-run": "a whole run of the control: the gate must hold",
}
"""Name -> what it is."""


def fault_names() -> tuple[str, ...]:
    """The names of all planted faults, in the order in which the selftest runs them."""
    return tuple(name for name, _ in _faults())


def planned_faults(killers: Mapping[str, Iterable[str]]) -> dict[str, PlannedFault]:
    """What the selftest must show.

    Args:
        killers: check -> the faults that it must kill.
    """
    controls = {name: PlannedFault(description, expected=False) for name, description in CONTROLS.items()}
    return controls | {
        name: PlannedFault(description, True, frozenset(check for check, faults in killers.items() if name in faults))
        for name, description in _faults()
    }


def _faults() -> Iterator[tuple[str, str]]:
    for fault in (*SUBJECT_FAULTS, *REFERENCE_FAULTS, *RUN_FAULTS):
        yield fault.name, fault.description
