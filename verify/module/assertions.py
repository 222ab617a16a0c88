"""Assertions for a user's own tests, on (f, z0, args); what they say is what `revdeq check` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verify.module.check import CONDITIONS, check_module
from verify.module.finding import Outcome


Map = Callable[[Any, Any], Any]


def assert_gradient_exact(function: Map, z0: Any, args: Any = (), *, beta: float = 0.5, num_steps: int = 8) -> None:
    """The reversible gradient is to the bit that of stored inputs, and right within rounding.

    Args:
        function: callable of (z, args).
        z0: start, a floating tensor or a pytree of them.
        args: any pytree.
        beta: relaxation parameter.
        num_steps: N.

    Raises:
        AssertionError: it is not, or could not be checked.
    """
    __tracebackhide__ = True
    _assert(("gradient-exact",), (function, z0, args), beta=beta, num_steps=num_steps)


def assert_derivative(function: Map, z0: Any, args: Any = (), *, beta: float = 0.5, num_steps: int = 8) -> None:
    """Torch's gradient of the N steps is their derivative, by differences in float64; see `assert_gradient_exact`."""
    __tracebackhide__ = True
    _assert(("derivative",), (function, z0, args), beta=beta, num_steps=num_steps)


def assert_contracting(function: Map, z0: Any, args: Any = (), *, beta: float = 0.5) -> None:
    """The step contracts near the fixed point, by eigenvalues that are estimated; see `assert_gradient_exact`."""
    __tracebackhide__ = True
    _assert(("contracting",), (function, z0, args), beta=beta)


def assert_replayable(function: Map, z0: Any, args: Any = ()) -> None:
    """What f returns looks like z0, has the same bits whenever and however it is evaluated, and f changes nothing.

    See `assert_gradient_exact`.
    """
    __tracebackhide__ = True
    _assert(CONDITIONS, (function, z0, args))


def assert_headroom(function: Map, z0: Any, args: Any = (), *, beta: float = 0.5, num_steps: int = 8) -> None:
    """States, values and gradients stay well within the range of their dtypes; see `assert_gradient_exact`."""
    __tracebackhide__ = True
    _assert(("headroom",), (function, z0, args), beta=beta, num_steps=num_steps)


def assert_rows_independent(function: Map, z0: Any, args: Any = ()) -> None:
    """Dimension 0 of z0 counts samples that do not read each other; see `assert_gradient_exact`."""
    __tracebackhide__ = True
    _assert(("rows",), (function, z0, args), noted_fails=True)


def _assert(
    claims: tuple[str, ...], source: tuple[Map, Any, Any], *, noted_fails: bool = False, **settings: Any
) -> None:
    __tracebackhide__ = True
    refused = {Outcome.FALLS_SHORT, Outcome.NOT_CHECKED} | ({Outcome.NOTED} if noted_fails else set())
    failures = [finding for finding in check_module(source, only=claims, **settings) if finding.outcome in refused]
    if failures:
        raise AssertionError("\n".join(finding.text() for finding in failures))
