"""Claim: what torch differentiates f to is f's derivative, and not only the same in every adjoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verify.criteria import REFERENCE_SHARE
from verify.module.finding import Finding, Outcome, judged
from verify.module.specimen import Specimen
from verify.module.steps import WIDE, end_at, first_line, run_at
from verify.reference.float64_differences import float64_finite_differences


VALUE_ROUNDOFF = 2.0**-50
"""Relative accuracy of z_N, a few roundings of float64 per component."""

SLOPE_ROUNDOFF = 2.0**-45
"""Relative accuracy of the sum <g, d>, whose terms are as right as the gradient: some hundreds of roundings."""

ASIDE = 2.0**-4
"""How far from z0, in its own size, the derivative is taken."""

LIMIT = 10.0
"""Errors of a central difference; its estimate counts the next term of the series and the rounding of two values."""


@dataclass(frozen=True)
class _Slope:
    """The derivative of the N-step loss along a direction, twice.

    Attributes:
        torch: <g, d>, with torch's gradient g.
        difference: of the loss itself.
        error: of the difference, estimated, and of the sum.
        size: sum of |g_i d_i| over all components.
    """

    torch: float
    difference: float
    error: float
    size: float

    @property
    def ratio(self) -> float:
        apart = abs(self.torch - self.difference)
        return apart / self.error if self.error > 0 else (0.0 if apart == 0 else math.inf)


def check_derivative(specimen: Specimen) -> Iterator[Finding]:
    """<g, d> is the central difference of the N-step loss along d, near z0 and with everything in float64.

    It is believed to be wrong where two directions and two steps say so; then each leaf is tried alone. How this can
    fail: detach and no_grad inside f, a custom backward that is wrong, a tensor that f reads where torch does not see
    it. A kink of f near the state, or a cast inside f, leaves the difference without power, which is said.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), section 25.6.
    """
    allowed = f"<= {LIMIT:g} errors of the difference, estimated from two steps and from float64's rounding"
    try:
        line = _Line(specimen)
        tries = [line.slope(specimen.names, seed=0), line.slope(specimen.names, seed=1, shrink=8.0)]
    except Exception as error:  # noqa: BLE001  (whatever f cannot do in float64, it says)
        yield Finding(
            claim="derivative",
            outcome=Outcome.NOT_CHECKED,
            found=f"f cannot be had in float64: {first_line(error)}",
            allowed=allowed,
            advice="give the tensors that f makes the dtype of z, and cast to no dtype by name",
        )
        return
    best = min(tries, key=lambda slope: slope.ratio)
    if not best.error <= REFERENCE_SHARE * best.size:
        yield Finding(
            claim="derivative",
            outcome=Outcome.NOT_CHECKED,
            found=f"the difference is only good to {best.error:.1e} where the terms of the slope add up to "
            f"{best.size:.1e}",
            allowed=allowed,
            advice="look for kinks of f near z0, and for casts to a narrower dtype inside f",
        )
        return
    wrong = [] if best.ratio <= LIMIT else [n for n in specimen.names if not line.slope((n,), seed=2).ratio <= LIMIT]
    yield judged(
        "derivative",
        best.ratio <= LIMIT,
        f"slope {best.torch:.10g} by torch, {best.difference:.10g} by differences of f, measured "
        f"{best.ratio:.3g} errors" + (f"; wrong in {', '.join(wrong)}" if wrong else ""),
        allowed,
        "look inside f for detach, no_grad, .data, integer or rounding operations and custom backward passes; where "
        "one is meant, leave this claim out",
        best.ratio,
    )


class _Line:
    """The loss <c, z_N> along lines through the leaves, in float64.

    Args:
        specimen: the function.
    """

    def __init__(self, specimen: Specimen) -> None:
        self._specimen = specimen
        leaves = specimen.leaves(WIDE)
        generator = torch.Generator().manual_seed(17)
        for name in specimen.state_names:
            with torch.no_grad():
                # Off z0, which may lie on a kink: zeros under a ReLU do.
                leaves[name] += ASIDE * _direction(leaves[name], generator)
        self._gradient = run_at(specimen, leaves, WIDE).values
        self._leaves = {name: leaf.detach() for name, leaf in leaves.items()}
        self._cotangents = [c.to(WIDE) for c in specimen.cotangents()]
        self._end = end_at(specimen, self._leaves, WIDE)
        # Added to the loss, so that its size is that of its terms and its rounding is not hidden by what cancels.
        self._size = sum(float((c * z).abs().sum()) for c, z in zip(self._cotangents, self._end, strict=True))

    def slope(self, names: tuple[str, ...], *, seed: int, shrink: float = 1.0) -> _Slope:
        """The slope along random numbers of the size of each leaf.

        Args:
            names: the leaves that move.
            seed: of the numbers.
            shrink: by how much the step is smaller than the usual one.
        """
        generator = torch.Generator().manual_seed(seed)
        direction = {name: _direction(self._leaves[name], generator) for name in names}
        terms = [self._gradient[name].to(WIDE) * d for name, d in direction.items()]

        def loss(h: np.ndarray) -> float:
            moved = {name: leaf + float(h[0]) * direction[name] for name, leaf in self._leaves.items() if name in names}
            end = end_at(self._specimen, self._leaves | moved, WIDE)
            pairs = zip(self._cotangents, end, self._end, strict=True)
            return self._size + sum(float((c * (z - z0)).sum()) for c, z, z0 in pairs)

        step = VALUE_ROUNDOFF ** (1 / 3) / shrink
        found = float64_finite_differences(loss, np.zeros(1), np.ones(1), step=step, value_roundoff=VALUE_ROUNDOFF)
        size = sum(float(term.abs().sum()) for term in terms)
        error = found.error_estimate + SLOPE_ROUNDOFF * size
        return _Slope(sum(float(term.sum()) for term in terms), float(found.value), error, size)


def _direction(leaf: Tensor, generator: torch.Generator) -> Tensor:
    size = float(leaf.abs().max()) if leaf.numel() else 1.0
    return (torch.randn(leaf.shape, generator=generator, dtype=WIDE) * (size or 1.0)).to(leaf.device)
