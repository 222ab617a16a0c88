"""The best relaxation parameter: closed forms for whole spectra, and the best one after a given number of steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from revdeq.rates.arguments import checked_constant, checked_eigenvalue, checked_real, checked_semi_axis, like_inputs
from revdeq.rates.reverse import error_growth


Spectrum = Literal["any", "real", "imaginary", "ellipse"]
SPECTRA: tuple[Spectrum, ...] = ("any", "real", "imaginary", "ellipse")


def semi_axes(
    contraction_constant: float | None = None,
    spectrum: Spectrum = "any",
    *,
    real: float | None = None,
    imaginary: float | None = None,
) -> tuple[float, float]:
    """Turn what is known of the eigenvalues of df/dz into the semi-axes (p, q) of an ellipse round 0.

    "any" is the disc of radius k, "real" the interval [-k, k], "imaginary" the interval i[-k, k]; "ellipse" takes
    `real` and `imaginary` themselves.

    Raises:
        ValueError: an unknown spectrum, a number that is missing, superfluous or outside its range.
    """
    if spectrum not in SPECTRA:
        raise ValueError(f"spectrum is {spectrum!r}; it must be one of {', '.join(SPECTRA)}")
    if spectrum == "ellipse":
        if real is None or imaginary is None or contraction_constant is not None:
            raise ValueError(
                "spectrum='ellipse' takes real= and imaginary=, its semi-axes, and no contraction_constant"
            )
        return float(checked_semi_axis("real", real, below_one=True)), float(checked_semi_axis("imaginary", imaginary))
    if contraction_constant is None or real is not None or imaginary is not None:
        raise ValueError(f"spectrum={spectrum!r} takes a contraction_constant; real= and imaginary= go with 'ellipse'")
    k = float(checked_constant(contraction_constant, contraction=spectrum != "imaginary"))
    return (0.0 if spectrum == "imaginary" else k), (0.0 if spectrum == "real" else k)


def optimal_beta(
    contraction_constant: float | None = None,
    spectrum: Spectrum = "any",
    *,
    real: float | None = None,
    imaginary: float | None = None,
) -> float:
    """Relaxation parameter with the least asymptotic rate over a spectrum.

        beta = 2 / (1 + sqrt(1 + q^2 - p^2)),     rate = ((p + q) / (1 + sqrt(1 + q^2 - p^2)))^2

    for the ellipse with semi-axes p (real) and q (imaginary): 2/(1+sqrt(1-k^2)) for a real and 2/(1+sqrt(1+k^2)) for an
    imaginary spectrum. For "any" it is exactly 1, where `worst_rate` has its least value k^2 and where a step cannot be
    undone: take `balanced_beta`, which weighs speed against the digits that reversal costs. Per evaluation of f the
    rate is that of the best Chebyshev method for the same ellipse, so no schedule of betas converges faster in the end.

    Args:
        contraction_constant: k, for "any" and "real" less than 1.
        spectrum: what is known of the eigenvalues of df/dz: "any", "real", "imaginary" or "ellipse".
        real: semi-axis p < 1, with "ellipse".
        imaginary: semi-axis q, with "ellipse".

    Raises:
        ValueError: k >= 1 where a contraction is needed, or a number missing or outside its range.

    References:
        (T4). Young (1954), doi:10.1090/S0002-9947-1954-0059635-7; Kredell, BIT 2 (1962) 16-23; Manteuffel, Numer.
        Math. 28 (1977) 307-327, doi:10.1007/BF01389971 (the Chebyshev rate of an ellipse).
    """
    p, q = semi_axes(contraction_constant, spectrum, real=real, imaginary=imaginary)
    return 2 / (1 + (1 + (q - p) * (q + p)) ** 0.5)


def optimal_rate(
    contraction_constant: float | None = None,
    spectrum: Spectrum = "any",
    *,
    real: float | None = None,
    imaginary: float | None = None,
) -> float:
    """Rate per step at `optimal_beta`; the arguments and errors are the same."""
    p, q = semi_axes(contraction_constant, spectrum, real=real, imaginary=imaginary)
    return ((p + q) / (1 + (1 + (q - p) * (q + p)) ** 0.5)) ** 2


@dataclass(frozen=True)
class AveragedOptimum:
    """Best averaging weight alpha of (1-alpha) z + alpha f(z) with the beta and the rate of the averaged map."""

    alpha: float
    beta: float
    rate: float


def optimal_averaging(real_min: float, real_max: float, imaginary: float = 0.0) -> AveragedOptimum:
    """Averaging weight that centres the spectrum of (1-alpha) z + alpha f(z) on 0, with its optimal beta and rate.

        alpha = 1 / (1 - (real_min + real_max) / 2)

    The spectrum of df/dz lies in the ellipse over [real_min, real_max] with imaginary semi-axis `imaginary`; its real
    part may lie far below -1, where f itself never converges, but must stay below 1. For a spectrum that leans to
    positive numbers alpha is above 1.

    Args:
        real_min: smallest real part.
        real_max: largest real part, < 1.
        imaginary: largest imaginary part, >= 0.

    Raises:
        ValueError: real_max >= 1 (the averaged map has its eigenvalue on the same side of 1), or real_min > real_max.

    References:
        (T5). Chebyshev's choice of centre: Manteuffel (1977), doi:10.1007/BF01389971.
    """
    high = float(
        checked_real(
            "real_max",
            real_max,
            lambda r: r < 1,
            "less than 1, because averaging cannot move an eigenvalue across 1",
        )
    )
    low = float(checked_real("real_min", real_min, lambda r: r <= high, f"at most real_max = {high:g}"))
    q = float(checked_semi_axis("imaginary", imaginary))
    distance = 1 - (low + high) / 2
    p, q = (high - low) / 2 / distance, q / distance
    return AveragedOptimum(
        1 / distance,
        optimal_beta(spectrum="ellipse", real=p, imaginary=q),
        optimal_rate(spectrum="ellipse", real=p, imaginary=q),
    )


def averaged_eigenvalue(kappa: complex | Tensor, alpha: float) -> complex | Tensor:
    """Eigenvalue of the averaged map (1-alpha) z + alpha f(z): 1 - alpha + alpha kappa.

    Raises:
        ValueError: alpha <= 0 or not finite.
    """
    weight = float(checked_real("alpha", alpha, lambda w: w > 0, "positive and finite"))
    return 1 - weight + weight * kappa


def averaging_limit(kappa: complex | Tensor) -> float | Tensor:
    """Largest alpha for which (1-alpha) z + alpha f(z) can converge at kappa: 2 / (1 - Re kappa) for Re kappa < 1.

    Below it some beta, small enough, converges: the region of convergence tends to the strip |Re| < 1.

    Raises:
        ValueError: an eigenvalue with real part 1 or more, which no averaging helps.

    References:
        (T5).
    """
    real_part = kappa.real if isinstance(kappa, Tensor) else complex(kappa).real
    part = checked_real("the real part of kappa", real_part, lambda r: r < 1, "less than 1: averaging helps no other")
    return like_inputs(2 / (1 - part), kappa)


def balanced_beta(num_steps: int, kappa: complex | Tensor, *, state_dtype: torch.dtype = torch.float64) -> float:
    """The beta that converges furthest in `num_steps` without reversal forgetting more than is gained.

    Minimises solution + u rounding of `error_growth` over beta: near 1 few steps converge but the inverse forgets
    all, near 0 the inverse is benign but nothing converges. More steps or a narrower state push beta away from 1.

    Args:
        num_steps: N >= 1 steps, each two evaluations of f.
        kappa: eigenvalues of df/dz at the fixed point, or points of the boundary of a region that holds them
            (`ellipse_points(*semi_axes(...), num_points)` for what is known of a spectrum).
        state_dtype: floating dtype of the coupled states; its unit roundoff is u.

    Raises:
        ValueError: num_steps < 1, an empty spectrum, or an eigenvalue for which no beta converges (|Re kappa| >= 1).

    References:
        (M1, M2).
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    eigenvalues = checked_eigenvalue(kappa)
    furthest = float(eigenvalues.real.abs().max())
    if not (furthest < 1):
        raise ValueError(
            f"kappa has an eigenvalue with |real part| = {furthest:.6g}, and no beta converges from 1 on: "
            "take an averaged map (`optimal_averaging`) where the real part is <= -1"
        )
    unit_roundoff = torch.finfo(state_dtype).eps / 2

    def error(betas: Tensor) -> Tensor:
        growth = error_growth(betas, eigenvalues, num_steps)
        return (growth.solution + unit_roundoff * growth.rounding)[-1]

    return minimising_beta(error)


def minimising_beta(objective: Callable[[Tensor], Tensor]) -> float:
    """Minimise a function of beta over (0, 2) without 1: a grid, then finer grids round the best point."""
    # The objective has a pole at 1 and one or two valleys; an even number of points misses 1.
    low, high = 0.0, 2.0
    best = torch.tensor(0.5, dtype=torch.float64)
    for _ in range(4):
        grid = torch.linspace(low, high, 130, dtype=torch.float64)[1:-1]
        grid = grid[grid != 1]
        values = objective(grid)
        best = grid[torch.where(torch.isnan(values), torch.inf, values).argmin()]
        width = 1.5 * (high - low) / 129
        low, high = max(0.0, float(best) - width), min(2.0, float(best) + width)
    return float(best)
