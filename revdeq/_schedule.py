"""Schedules of beta: a relaxation parameter for every half step, still reversible because the betas are recorded.

NOTE [What a schedule can and cannot gain]
At a constant optimal beta the iteration already has the asymptotic rate of the best polynomial method for the ellipse
of eigenvalues, per evaluation of f, so no schedule converges faster in the end. But it starts slowly: after N steps
its error is about N times that of the best polynomial. The Chebyshev schedule has the best polynomial at every half
step. It gains where N is small and the ellipse is far from a disc, nothing for a disc (there all betas are 1), and it
forgets about as many digits in reverse. For a non-linear f it is the linearisation that it fits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq.rates.arguments import checked_beta, checked_eigenvalue, checked_real, checked_semi_axis


Schedule = tuple[tuple[float, float], ...]
"""For every step the betas of its two half steps, that of y' = (1-beta) y + beta f(z) and that of z'."""


def constant_schedule(beta: float, num_steps: int) -> Schedule:
    """Return the schedule of `Reversible(beta)`.

    Raises:
        ValueError: num_steps < 0, or beta not positive or 1.
    """
    _check_steps(num_steps)
    value = float(checked_beta(beta, reversible=True))
    return ((value, value),) * num_steps


def chebyshev_schedule(num_steps: int, real: float, imaginary: float = 0.0, *, first: float = 1 - 2.0**-6) -> Schedule:
    """Betas whose error polynomial is the Chebyshev polynomial of the ellipse at every half step.

        beta_1 = 1,     beta_2 = 1 / (1 - s/2),     beta_{i+1} = 1 / (1 - s beta_i / 4),     s = p^2 - q^2

    for half steps i = 1, 2, ..., and semi-axes p, q; beta_i tends to `optimal_beta`. The first half step starts from
    y0 = z0, so beta_1 = 1 would lose nothing that is not known, but a step that divides by 1 - beta cannot use it:
    `first` takes its place. Its reversal rebuilds y0, which f never sees: no gradient depends on its digits.

    Args:
        num_steps: N >= 0 steps, 2 N half steps.
        real: semi-axis p of the ellipse along the real axis, 0 <= p < 1.
        imaginary: semi-axis q along the imaginary axis, >= 0, different from p.
        first: beta of the first half step; exactly 1 where the solver knows that y0 = z0.

    Raises:
        ValueError: p = q, where every beta would be 1 (take a constant `balanced_beta`), or an argument outside its
            range.

    References:
        Golub and Varga, Numer. Math. 3 (1961) 147-156, doi:10.1007/BF01386013 (the cyclic Chebyshev method);
        Manteuffel, Numer. Math. 28 (1977) 307-327, doi:10.1007/BF01389971 (ellipses).
    """
    _check_steps(num_steps)
    p = float(checked_semi_axis("real", real, below_one=True))
    q = float(checked_semi_axis("imaginary", imaginary))
    if p == q:
        raise ValueError(
            f"the spectrum is a disc of radius {p:g}, for which every Chebyshev beta is 1 and no step can be undone: "
            "take a constant balanced_beta"
        )
    start = float(checked_real("first", first, lambda b: (b > 0) & (b < 2), "between 0 and 2"))
    focal = (p - q) * (p + q)
    half_steps = [1.0, 1 / (1 - focal / 2)]
    while len(half_steps) < 2 * num_steps:
        half_steps.append(1 / (1 - focal * half_steps[-1] / 4))
    half_steps[0] = start
    return tuple((half_steps[2 * n], half_steps[2 * n + 1]) for n in range(num_steps))


def adapted_beta(beta: float, residual_ratio: float, *, largest: float = 1.95) -> float:
    """Next beta of an adaptive run on a real spectrum, from the residual's ratio over the last step.

        k = (r - a) / (beta sqrt(r)),     next = 2 / (1 + sqrt(1 - k^2)),     a = 1 - beta

    Young's relation turned round: a ratio r above |a| is the slowest real eigenvalue's, k, and gives the beta that is
    optimal for it. A ratio at or below |a| says that beta is at the optimum or beyond: it is kept. A ratio of 1 or more
    says that the spectrum is not real, or not that of a contraction: beta returns below 1, where every contraction
    converges. Not for maps with complex eigenvalues away from the real axis: there an overlarge beta diverges first.
    What is chosen anew lies above 1 by `NEAREST_TO_ONE` at least, because a step near 1 forgets its start.

    Args:
        beta: of the last step, 0 < beta < 2, not 1.
        residual_ratio: ||f(z) - z|| after that step over the one before, >= 0.
        largest: upper limit of what is returned, below 2.

    Returns:
        The next beta. Recorded, it makes the step reversible; as a function of the data it is not differentiated.

    Raises:
        ValueError: an argument outside its range.

    References:
        Hageman and Young, "Applied Iterative Methods" (1981), chapter 9: adaptive successive over-relaxation.
    """
    b = checked_real("beta", beta, lambda x: (x > 0) & (x < 2) & (x != 1), "between 0 and 2 and different from 1")
    ratio = checked_real("residual_ratio", residual_ratio, lambda x: x >= 0, "finite and not negative")
    limit = float(checked_real("largest", largest, lambda x: (x > 1) & (x < 2), "between 1 and 2"))
    return float(next_beta(b, ratio, largest=limit))


NEAREST_TO_ONE = 2.0**-4
"""Least distance from 1 of a beta that `adapted_beta` chooses: a half step then forgets at most four bits."""


def next_beta(beta: Tensor, residual_ratio: Tensor, *, largest: float = 1.95) -> Tensor:
    """The formula of `adapted_beta` for tensors, without its checks; where the ratio is NaN beta is kept.

    Args:
        beta: of the last step, one entry a sample.
        residual_ratio: likewise.
        largest: upper limit.
    """
    a = 1 - beta
    k = (residual_ratio - a) / (beta * residual_ratio.sqrt())
    # Ratios of a transient can belong to no contraction; k just below 1 then asks for the limit.
    young = (2 / (1 + (1 - k * k).clamp(min=0.0).sqrt())).clamp(1 + NEAREST_TO_ONE, largest)
    risen = torch.where(residual_ratio > a.abs(), torch.maximum(beta, young), beta)
    return torch.where(residual_ratio >= 1, beta.clamp(max=0.5), risen)


@dataclass(frozen=True)
class ScheduleErrors:
    """Predictions for a schedule on a normal df/dz, each largest over its eigenvalues.

    Attributes:
        solution: |z_N - z*| / |z_0 - z*|.
        rounding: relative error of the reversed gradient in units roundoff of the state.
    """

    solution: float
    rounding: float


def schedule_errors(schedule: Schedule, kappa: complex | Tensor) -> ScheduleErrors:
    """Predict what a schedule reaches and what its reversal forgets.

        rounding = sum_{n<N} ||M_N ... M_{n+1}||^2 / prod |det M_i|,     det M_i = (1 - beta_i)(1 - beta_i')

    the product of the steps after n, which weighs the cotangent and, inverted, the rebuilt state. The first step
    counts for nothing: its y0 never enters f. For a constant beta this is `error_growth`.

    Args:
        schedule: betas of every half step, none of them 1 after the first step.
        kappa: eigenvalues of df/dz.

    Raises:
        ValueError: a beta of exactly 1 after the first half step, or an empty spectrum.
    """
    eigenvalues = checked_eigenvalue(kappa).flatten()
    y = z = torch.ones_like(eigenvalues)
    for first, second in schedule:
        y = (1 - first) * y + first * eigenvalues * z
        z = (1 - second) * z + second * eigenvalues * y
    product = torch.eye(2, dtype=torch.complex128).expand(len(eigenvalues), 2, 2)
    determinant, rounding = 1.0, 0.0
    for n in range(len(schedule) - 1, -1, -1):
        rounding += float(torch.linalg.matrix_norm(product, 2).max()) ** 2 / determinant
        first, second = schedule[n]
        if n > 0 and 1.0 in (first, second):
            raise ValueError(f"step {n} of the schedule has a beta of exactly 1, which cannot be undone")
        lower, upper = second * eigenvalues, first * eigenvalues
        a, b = torch.full_like(eigenvalues, 1 - first), torch.full_like(eigenvalues, 1 - second)
        rows = [torch.stack([a, upper], -1), torch.stack([a * lower, b + lower * upper], -1)]
        product = product @ torch.stack(rows, -2)
        determinant *= abs((1 - first) * (1 - second))
    return ScheduleErrors(float(z.abs().max()), rounding)


def _check_steps(num_steps: int) -> None:
    if num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 0")
