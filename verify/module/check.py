"""Check a user's own module: all that applies, in seconds, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from verify.certificate.source import Source, source_from
from verify.module.contraction import check_contracting, check_headroom
from verify.module.derivative import check_derivative
from verify.module.finding import Finding, Outcome
from verify.module.gradient import check_compiled, check_gradient_exact
from verify.module.one_map import check_leaves_no_trace, check_one_map, check_returns, check_rows
from verify.module.specimen import CheckError, Settings, Specimen
from verify.module.steps import first_line


CLAIMS: Mapping[str, Callable[[Specimen], Iterator[Finding]]] = MappingProxyType(
    {
        "returns": check_returns,
        "leaves-no-trace": check_leaves_no_trace,
        "one-map": check_one_map,
        "rows": check_rows,
        "gradient-exact": check_gradient_exact,
        "derivative": check_derivative,
        "contracting": check_contracting,
        "headroom": check_headroom,
        "compiles": check_compiled,
    }
)
"""What is claimed of a module, by name, in the order in which it is checked."""

CONDITIONS = ("returns", "leaves-no-trace", "one-map")
"""The claims on which all others rest."""

GivenSource = str | Callable[[], Any] | tuple[Callable[[Any, Any], Any], Any, Any]


def check_module(
    source: GivenSource,
    *,
    beta: float = 0.5,
    num_steps: int = 8,
    gradient_error: float = 1e-3,
    compile: bool = False,
    only: Collection[str] = (),
    leave_out: Collection[str] = (),
) -> tuple[Finding, ...]:
    """Check what applies to a user's module f(z, args).

    Args:
        source: "module:factory", a factory, or its result (function, z0, args).
        beta: relaxation parameter, in (0, 2) and not 1.
        num_steps: N, >= 1.
        gradient_error: relative error of the gradient for which beta and steps are planned.
        compile: whether to compile half steps too ("compiles"), which takes long.
        only: names of `CLAIMS` to check alone.
        leave_out: names of `CLAIMS` to leave out, which is said.

    Returns:
        Findings in the order of `CLAIMS`. The module holds if none has the outcome FALLS_SHORT or NOT_CHECKED.

    Raises:
        SourceError: the source does not give (function, z0, args).
        CheckError: an argument is not as said above.
    """
    settings = Settings(beta, num_steps, gradient_error)
    for name in (*only, *leave_out):
        if name not in CLAIMS:
            raise CheckError(f"there is no claim {name!r}; there are {', '.join(CLAIMS)}")
    asked = only or [name for name in CLAIMS if compile or name != "compiles"]
    chosen = [name for name in CLAIMS if name in asked and name not in leave_out]
    if not chosen:
        raise CheckError("leave_out leaves no claim to check; name fewer of them")
    loaded = source_from(source)
    found = [_told(finding, source, settings) for finding in _findings(loaded, settings, chosen)]
    found += [_left_out(name) for name in CLAIMS if name in leave_out]
    return tuple(found)


def _findings(source: Source, settings: Settings, chosen: list[str]) -> Iterator[Finding]:
    try:
        specimen = Specimen(source, settings)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever f raises is the finding)
        yield Finding(
            claim="returns",
            outcome=Outcome.FALLS_SHORT,
            found=f"f(z0, args) cannot be evaluated: {first_line(error)}",
            allowed="structure, shapes, dtypes and device of z0",
            advice="make f(z0, args) return the next z; nothing else was checked",
        )
        return
    broken = ""
    for name in chosen:
        if broken:
            yield _not_checked(name, f"rests on {broken}", f"see {broken}")
            continue
        try:
            found = list(CLAIMS[name](specimen))
        except (Exception, SystemExit) as error:  # noqa: BLE001  (f may raise at other states, and says what)
            advice = "make f work at every state that the iteration visits, or leave this claim out"
            found = [_not_checked(name, f"f raised {first_line(error)}", advice)]
        yield from found
        if name in CONDITIONS and any(finding.outcome is Outcome.FALLS_SHORT for finding in found):
            broken = name


def _not_checked(name: str, found: str, advice: str) -> Finding:
    return Finding(claim=name, outcome=Outcome.NOT_CHECKED, found=found, allowed="no error", advice=advice)


def _left_out(name: str) -> Finding:
    return Finding(claim=name, outcome=Outcome.NOTED, found="left out, as was asked", allowed="anything")


def _told(finding: Finding, source: GivenSource, settings: Settings) -> Finding:
    if not isinstance(source, str):
        return finding
    return replace(
        finding,
        replay=f"revdeq check {source} --beta {settings.beta!r} --steps {settings.num_steps} --only {finding.claim}",
    )
