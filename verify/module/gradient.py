"""Claims about the gradient of N reversible steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from revdeq import GradientError, Health, ReversibleAdjoint, SolveError
from verify.criteria import RATIO_LIMIT
from verify.module.expected import Expected
from verify.module.finding import Finding, Outcome, judged
from verify.module.specimen import Specimen
from verify.module.steps import Run, first_line, solver_run


_WHY = "R is about 1 where rounding alone is at work"


def check_gradient_exact(specimen: Specimen) -> Iterator[Finding]:
    """The default reversible gradient is to the bit that of stored inputs, and right within rounding.

    How this can fail: f is not the same map in the backward pass; a gradient that misses what f reads; f in its own
    dtype differs from f in float64 by more than rounding (constants or branches that depend on the dtype).
    """
    try:
        healths: list[Health] = []
        got = solver_run(specimen, ReversibleAdjoint(on_health=healths.append))
        stored = solver_run(specimen, ReversibleAdjoint(segment=1))
    except (GradientError, SolveError, TypeError, ValueError) as error:
        yield judged("gradient-exact", False, f"a solve of f raised {type(error).__name__}", "a gradient", str(error))
        return
    differing = [name for name, value in got.values.items() if not torch.equal(value, stored.values[name])]
    verified = all(health.verified for health in healths)
    apart = f"differs from that of stored inputs in {', '.join(differing)}" if differing else "is that of stored inputs"
    yield judged(
        "gradient-exact",
        verified and not differing,
        f"the reversed gradient {apart}, and f {'returned' if verified else 'did not return'} in backward the bits of "
        "the forward pass",
        "no bit, for both are the same sums at the same numbers",
        "see one-map for what does not repeat",
    )
    yield _near(specimen, "gradient-exact", got)
    if got.missing:
        yield Finding(
            claim="gradient-exact",
            outcome=Outcome.NOTED,
            found=f"no gradient reaches {', '.join(got.missing)}: z_N does not depend on it",
            allowed="leaves that f does not use",
            advice="if f is to use it, look for detach, no_grad, or a copy that f reads in its place",
        )


def check_compiled(specimen: Specimen) -> Iterator[Finding]:
    """Half steps compiled together with f give the same gradient within rounding."""
    try:
        got = solver_run(specimen, ReversibleAdjoint(), compile=True)
    except Exception as error:  # noqa: BLE001  (whatever the compiler says)
        yield judged(
            "compiles",
            False,
            f"Reversible(beta, compile=True) raised {first_line(error)}",
            "no error",
            "leave compile=False, or write f without graph breaks, random numbers and running statistics",
        )
        return
    yield _near(specimen, "compiles", got)


def _near(specimen: Specimen, claim: str, got: Run) -> Finding:
    expected = Expected.of(specimen)
    worst = expected.worst(got)
    return judged(
        claim,
        worst.order <= RATIO_LIMIT,
        f"{worst.text()} (the worst of {len(expected.values)} leaves; expected from {expected.words})",
        f"<= {RATIO_LIMIT:g}: {_WHY}",
        "see derivative for f's own gradient; where f takes constants or branches from its dtype, expect what float64 "
        "gives and give z0 in it",
        worst.value,
    )
