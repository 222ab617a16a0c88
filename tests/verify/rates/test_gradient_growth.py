"""What reversal does to gradients, and how the N-step gradient tends to the implicit one, measured with the solver."""

import math

import pytest
import torch

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.rates import ellipse_points, error_growth, optimal_beta, spectral_rate


DIMENSION = 12
# Whatever is left of the gradient is returned: how much that is, is what is measured here.
REVERSED = ReversibleAdjoint(verify=False)


def weights(kind: str, k: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=generator, dtype=torch.float64))[0]
    if kind == "real":
        core = torch.diag(torch.linspace(-k, k, DIMENSION, dtype=torch.float64))
    else:
        core = torch.zeros(DIMENSION, DIMENSION, dtype=torch.float64)
        for j, value in enumerate(torch.linspace(k / 4, k, DIMENSION // 2).tolist()):
            core[2 * j, 2 * j + 1], core[2 * j + 1, 2 * j] = -value, value
    return (basis @ core @ basis.T).to(torch.float32).to(torch.float64)


def gradient(weight: torch.Tensor, beta: float, steps: int, dtype: torch.dtype, adjoint, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(DIMENSION, generator=generator).to(dtype)
    cotangent = torch.randn(DIMENSION, generator=generator).to(dtype)
    parameter = weight.to(dtype).requires_grad_()
    solution = solve(
        lambda z, args: z @ args.T + inputs,
        torch.zeros(DIMENSION, dtype=dtype),
        parameter,
        solver=Reversible(beta, state_dtype=dtype),
        adjoint=adjoint,
        max_steps=steps,
        throw=False,
    )
    return torch.autograd.grad(solution.z1, parameter, cotangent)[0].to(torch.float64)


@pytest.mark.parametrize(
    ("kind", "k", "beta"),
    [
        ("real", 0.9, 0.5),
        ("real", 0.9, 0.8),
        ("real", 0.9, 1.6),
        ("real", 0.9, optimal_beta(0.9, "real")),
        ("real", 0.5, 0.5),
        ("imaginary", 0.9, 0.5),
        ("imaginary", 0.9, 0.8),
        ("imaginary", 0.9, optimal_beta(0.9, "imaginary")),
        ("imaginary", 2.0, 0.5),
    ],
)
def test_m1_error_of_the_reversed_gradient_is_predicted_within_its_constant(kind, k, beta):
    # The constant of M1 was measured from .016 to .43 over these spectra, betas and steps: predictions are from above.
    weight = weights(kind, k)
    kappa = torch.linalg.eigvals(weight)
    checked = 0
    for steps in (4, 8, 16, 32):
        units = float(error_growth(beta, kappa, steps).rounding[-1])
        if units * 2.0**-24 > 1e-2:
            continue
        errors = []
        for seed in range(3):
            exact = gradient(weight, beta, steps, torch.float64, UnrolledAdjoint(), seed)
            rough = gradient(weight, beta, steps, torch.float32, REVERSED, seed)
            errors.append(float((rough - exact).norm() / exact.norm()))
        constant = sum(errors) / len(errors) / (units * 2.0**-24)
        assert 0.01 <= constant <= 1
        checked += 1
    assert checked >= 1


def test_m1_sum_of_powers_alone_underestimates_at_the_double_eigenvalue():
    # At the optimal beta G = 1 and the plain sum is N; the measured error is a hundred times that.
    weight, beta, steps = weights("real", 0.9), optimal_beta(0.9, "real"), 24
    exact = gradient(weight, beta, steps, torch.float64, UnrolledAdjoint(), 0)
    rough = gradient(weight, beta, steps, torch.float32, REVERSED, 0)
    measured = float((rough - exact).norm() / exact.norm()) / 2.0**-24
    assert measured > 50 * steps


@pytest.mark.parametrize(("k", "beta"), [(0.9, 0.5), (0.9, 0.8), (0.5, 0.5)])
def test_m2_n_step_gradient_tends_to_the_implicit_one_at_the_rate_of_the_iteration(k, beta):
    weight = weights("real", k)
    defect = torch.eye(DIMENSION, dtype=torch.float64) - weight
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(DIMENSION, generator=generator).double()
    cotangent = torch.randn(DIMENSION, generator=generator).double()
    implicit = torch.outer(torch.linalg.solve(defect.T, cotangent), torch.linalg.solve(defect, inputs))
    rate = float(spectral_rate(torch.linalg.eigvals(weight), beta).max())
    counts = [round(n / -math.log(rate)) for n in (20, 22, 24, 26)]
    logs = []
    for steps in counts:
        exact = gradient(weight, beta, steps, torch.float64, UnrolledAdjoint(), 0)
        difference = float((exact - implicit).norm() / implicit.norm())
        # (C0 + C1 N) rho^N: the slowest mode's linear factor is known, and divided out.
        slope = (1 - k) * beta / (rate**0.5 - beta * k / 2)
        logs.append(math.log(difference / (1 + slope * steps)))
        growth = error_growth(beta, ellipse_points(k, 0.0, 65), steps)
        assert difference <= float(growth.truncation[-1])
    slopes = [(b - a) / (m - n) for a, b, n, m in zip(logs, logs[1:], counts, counts[1:], strict=False)]
    assert all(abs(slope / math.log(rate) - 1) <= 0.05 for slope in slopes)
