"""Claims about where the iteration goes: whether it contracts, with which beta and steps, and in which range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from revdeq import EstimateError, PlanError, SpectrumEstimate, extreme_eigenvalues, lipschitz_constant, plan
from revdeq._tree import Leaves
from revdeq.rates import spectral_rate
from verify.module.finding import Finding, Outcome, judged
from verify.module.specimen import Specimen
from verify.module.steps import first_line, own_run


MOST_STEPS = 64
"""Steps that are taken to come near the fixed point, where df/dz is looked at."""

RTOL = 0.05
"""Relative residual of the eigenvalues: they say which beta and steps, to two digits."""

ROOM_BITS = 10
"""Bits between the greatest value and the greatest number of the dtype: the room that `revdeq.plan` leaves for the
sums inside f."""


@dataclass(frozen=True)
class _Iteration:
    """The iteration from z0 until it is near the fixed point, or `MOST_STEPS`.

    Attributes:
        z: the last state.
        residuals: ||f(z_n) - z_n|| at the start of each step and at the end.
        near: whether the last one is as small as was wanted.
    """

    z: Leaves
    residuals: list[float]
    near: bool

    @staticmethod
    def of(specimen: Specimen) -> _Iteration:
        beta = specimen.settings.beta
        # What f rounds away, no step brings back.
        wanted = max(specimen.settings.gradient_error / 10, 8 * specimen.roundoff)
        residuals: list[float] = []
        y = z = specimen.z0
        with torch.no_grad():
            for _ in range(MOST_STEPS + 1):
                value = specimen.evaluate(z)
                residuals.append(_norm([a.double() - b.double() for a, b in zip(value, z, strict=True)]))
                near = residuals[-1] <= wanted * _norm(value)
                if near or not math.isfinite(residuals[-1]):
                    return _Iteration(z, residuals, near)
                y = tuple((1 - beta) * a + beta * b for a, b in zip(y, value, strict=True))
                z = tuple((1 - beta) * a + beta * b for a, b in zip(z, specimen.evaluate(y), strict=True))
        return _Iteration(z, residuals, False)

    @property
    def steps(self) -> int:
        return len(self.residuals) - 1

    @property
    def rate(self) -> float:
        """The factor by which a step changed the residual in the second half; NaN without steps."""
        if not self.steps:
            return math.nan
        half = self.steps // 2
        first, last = self.residuals[half], self.residuals[-1]
        return 0.0 if last == 0 else float((last / first) ** (1 / (self.steps - half)))


def check_contracting(specimen: Specimen) -> Iterator[Finding]:
    """The step contracts at the given beta near the fixed point, by the eigenvalues of df/dz there, estimated.

    How this can fail: no beta converges for eigenvalues with real part 1 or more, and none for real parts of -1 or
    less; a beta too great for imaginary ones. An estimate approaches from inside and looks at one state: it can miss.
    """
    beta = specimen.settings.beta
    allowed = "rate < 1, so that the error of z shrinks; an estimate, `revdeq certify` proves"
    went = _Iteration.of(specimen)
    if not math.isfinite(went.residuals[-1]):
        found = f"the iteration with beta {beta:g} overflows or turns NaN after {went.steps} steps"
        yield judged("contracting", False, found, allowed, "take a smaller beta, or reduce the gain of f", math.inf)
        return
    with specimen.untouched():
        spectrum = _spectrum(specimen, went.z)
        more = "" if isinstance(spectrum, str) else f"; {_lipschitz(specimen, went.z)}"
    measured = f"the residual changed by the factor {went.rate:.3g} a step in the last of {went.steps} steps"
    if isinstance(spectrum, str):
        rate, said = went.rate, f"eigenvalues of df/dz were not estimated ({spectrum})"
        advice = "" if rate < 1 else "take a smaller beta, or reduce the gain of f"
    else:
        rate = float(spectral_rate(spectrum.ritz_values, beta).max())
        said = (
            f"estimated at {'the fixed point' if went.near else 'the last state'}: rate {rate:.4g} a step with beta "
            f"{beta:g}, from eigenvalues of df/dz of modulus up to {spectrum.radius:.4g} with real parts "
            f"{spectrum.real_min:.4g} to {spectrum.real_max:.4g}{more}"
        )
        advice = _planned(specimen, spectrum)
    if math.isnan(rate):
        yield Finding(
            claim="contracting",
            outcome=Outcome.NOT_CHECKED,
            found=f"z0 is a fixed point already, and {said}",
            allowed=allowed,
            advice="start away from the fixed point",
        )
        return
    yield Finding(
        claim="contracting",
        outcome=Outcome.HOLDS if rate < 1 else Outcome.FALLS_SHORT,
        found=f"{said}; {measured}" if went.steps else said,
        allowed=allowed,
        advice=advice,
        measured=rate,
    )


def _norm(leaves: Sequence[torch.Tensor]) -> float:
    return math.hypot(*(float(leaf.double().norm()) for leaf in leaves))


def _spectrum(specimen: Specimen, z: Leaves) -> SpectrumEstimate | str:
    """The outer eigenvalues of df/dz, or why there are none."""
    try:
        return extreme_eigenvalues(specimen.function, specimen.tree(z), specimen.source.args, rtol=RTOL)
    except (EstimateError, ValueError) as error:
        return first_line(error)


def _lipschitz(specimen: Specimen, z: Leaves) -> str:
    try:
        found = lipschitz_constant(
            specimen.function, specimen.tree(z), specimen.source.args, rtol=2 * RTOL, max_iterations=100
        )
    except RuntimeError as error:  # an EstimateError, or an operation without a second derivative
        return f"Lipschitz constant not estimated ({first_line(error)})"
    return f"Lipschitz constant {found.value:.4g} or more"


def _planned(specimen: Specimen, spectrum: SpectrumEstimate) -> str:
    """What `revdeq.plan` says of an ellipse round the eigenvalues: beta and steps, or what stands in the way."""
    wish = specimen.settings.gradient_error
    real = max(spectrum.real_max, -spectrum.real_min)
    if not real < 1:
        return (
            "reduce the gain of f: no beta converges for an eigenvalue with real part 1 or more; for one of -1 or less "
            "iterate (1 - alpha) z + alpha f(z) with a small alpha (revdeq.Averaged)"
        )
    imaginary = spectrum.imaginary_max
    parts = spectrum.ritz_values.real / (real or 1.0), spectrum.ritz_values.imag / (imaginary or 1.0)
    outside = float(torch.hypot(*parts).max())
    try:
        made = plan(
            spectrum="ellipse",
            # Halfway to 1 at most, from where on nothing converges.
            real=min(outside * real, (1 + real) / 2),
            imaginary=outside * imaginary,
            z=None,
            dtype=specimen.z0[0].dtype,
            gradient_error=wish,
        )
    except PlanError as error:
        return str(error)
    more = ", arithmetic='bitwise'" if made.arithmetic == "bitwise" else ""
    return (
        f"solver=Reversible({made.beta:.6g}{more}), max_steps={made.num_steps} is planned to bring the gradient within "
        f"{wish:g} of the implicit one"
    )


def check_headroom(specimen: Specimen) -> Iterator[Finding]:
    """States, values and gradients of the N steps stay well within the range of their dtypes.

    How this can fail: float16, whose greatest number is 65504; an iteration that diverges; a loss scale.
    """
    greatest = dict.fromkeys(specimen.state_names, 0.0)

    def watched(f: Callable[[Leaves], Leaves]) -> Callable[[Leaves], Leaves]:
        def evaluate(z: Leaves) -> Leaves:
            value = f(z)
            for name, a, b in zip(specimen.state_names, z, value, strict=True):
                greatest[name] = max(greatest[name], _greatest(a), _greatest(b), key=_order)
            return value

        return evaluate

    run = own_run(specimen, watched)
    rooms = {
        name: _room(greatest[name], leaf.dtype) for name, leaf in zip(specimen.state_names, specimen.z0, strict=True)
    }
    rooms |= {f"the gradient of {n}": _room(_greatest(run.values[n]), run.values[n].dtype) for n in specimen.names}
    worst = min(rooms, key=lambda name: rooms[name])
    yield judged(
        "headroom",
        rooms[worst] >= ROOM_BITS,
        f"{worst} stays {max(0.0, rooms[worst]):.1f} bits below the greatest number of its dtype",
        f">= {ROOM_BITS} bits, room for the sums inside f",
        "normalise what f returns, scale the loss down, or use bfloat16 or float32 in the place of float16",
        rooms[worst],
    )


def _greatest(tensor: torch.Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _room(greatest: float, dtype: torch.dtype) -> float:
    """Bits between a size and the greatest number of a dtype; none for what is not finite."""
    if not math.isfinite(greatest):
        return -math.inf
    return math.log2(torch.finfo(dtype).max) - math.log2(greatest) if greatest > 0 else math.inf
