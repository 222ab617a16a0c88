"""The problems by name, and which profile runs which."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from verify.problems import affine, cells, control, scalar
from verify.problems.problem import Problem


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "affine-real": affine.affine_real,
    "affine-imaginary": affine.affine_imaginary,
    "affine-general": affine.affine_general,
    "affine-defective": affine.affine_defective,
    "affine-slow": affine.affine_slow,
    "affine-rotation": affine.affine_rotation,
    "affine-expanding": affine.affine_expanding,
    "kepler": scalar.kepler,
    "lambert-w": scalar.lambert_w,
    "colebrook": scalar.colebrook,
    "riccati": control.riccati,
    "bellman": control.bellman,
    "dense-tanh": cells.dense_tanh,
    "dense-softplus": cells.dense_softplus,
    "conv-group-norm": cells.conv_group_norm,
    "attention": cells.attention,
}

_BEYOND_QUICK = ("affine-slow", "affine-rotation", "affine-expanding")


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
    """Names of the problems that a profile runs.

    Args:
        profile: "quick", "full" or "nightly".

    Raises:
        ValueError: another profile.
    """
    if profile not in ("quick", "full", "nightly"):
        raise ValueError(f"profile is {profile!r}; choose quick, full or nightly")
    return tuple(name for name in PROBLEMS if profile != "quick" or name not in _BEYOND_QUICK)
