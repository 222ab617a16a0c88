"""The problems by name: those that the modules of this package declare."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from types import MappingProxyType, ModuleType

from verify.discovery import declared
from verify.problems.problem import Problem
from verify.problems.scope import Declared, Scope


def _made(make: Callable[[], Problem], scope: Scope) -> Problem:
    return replace(make(), scope=scope)


def problems_of(package: ModuleType) -> dict[str, Callable[[], Problem]]:
    """The problems that the modules of a package declare, by name."""
    modules: list[Declared] = list(declared(package, "PROBLEMS").values())
    return {name: partial(_made, *entry) for module in modules for name, entry in module.items()}


PROBLEMS: Mapping[str, Callable[[], Problem]] = MappingProxyType(problems_of(sys.modules["verify.problems"]))


@cache
def get_problem(name: str) -> Problem:
    """The problem of that name; the same object on every call, so that caches keyed by it work.

    Raises:
        ValueError: there is no such problem.
    """
    if name not in PROBLEMS:
        raise ValueError(f"there is no problem {name!r}; choose one of {', '.join(PROBLEMS)}")
    return PROBLEMS[name]()


def problem_names(profile: str) -> tuple[str, ...]:
    """Names of the problems on which a profile runs the reversible iteration.

    Args:
        profile: "quick", "full" or "nightly".

    Raises:
        ValueError: another profile.
    """
    if profile not in ("quick", "full", "nightly"):
        raise ValueError(f"profile is {profile!r}; choose quick, full or nightly")
    scopes = {name: get_problem(name).scope for name in PROBLEMS}
    return tuple(name for name, scope in scopes.items() if scope.reversible and (profile != "quick" or scope.quick))
