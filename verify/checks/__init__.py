"""Checks: one claim a module, which declares it whole. A check measures and returns rows; it never judges.

A module whose name has no underscore in front declares `CHECK`; the tables of checks and criteria are made from these.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from verify.case import Case
from verify.checks._check import TOPICS as TOPICS, Check as Check
from verify.criteria import Criterion
from verify.discovery import declared
from verify.result import Measurement
from verify.trial import References as References, Trial as Trial
from verify.trial.bench import Bench


def checks_of(package: ModuleType) -> dict[str, Check[Any]]:
    """The checks that the modules of a package declare, by name, in the order of the tables."""
    checks: list[Check[Any]] = list(declared(package, "CHECK").values())
    checks.sort(key=lambda check: (TOPICS.index(check.topic), check.name))
    return {check.name: check for check in checks}


CHECKS: Mapping[str, Check[Any]] = MappingProxyType(checks_of(sys.modules[__name__]))
"""Every check by its name, in the order of the tables."""

CRITERIA: Mapping[str, Criterion] = MappingProxyType({name: check.criterion for name, check in CHECKS.items()})
"""Every criterion by the name of its check."""


def checks_for(case: Case) -> tuple[Check[Any], ...]:
    """The checks that measure a case, the same in every profile and in a replay."""
    return tuple(check for check in CHECKS.values() if check.applies(case))


def measure(check: str, bench: Bench) -> list[Measurement]:
    """Run one check by its name; see `Check.measured`."""
    return CHECKS[check].measured(bench)


__all__ = [
    "TOPICS",
    "Check",
    "References",
    "Trial",
]
