"""The beta of "auto": never much slower than those in use, also where Ritz values are no eigenvalues."""

import math
from typing import Any

import pytest
import torch

from random_maps import FAMILIES, FAR_FROM_NORMAL, draw, evaluations
from revdeq import Reversible, UnrolledAdjoint, automatic_beta, solve
from revdeq._automatic import TRIAL_STEPS, USUAL
from revdeq._estimate import EstimateError
from revdeq._reduced import ReducedModel, steps_until
from revdeq.rates import optimal_beta, spectral_rate


TOLERANCES = (1e-3, 1e-6, 1e-9)
MOST = 600
SHORT, DEARER = 40, 1.2
ROUNDOFF = 2.0**-53


def compared(family: str, curved: bool, seed: int) -> list[tuple[float, float, float]]:
    """(tolerance, evaluations of the better of .5 and .8, those of auto with its own), where the former are many."""
    function, z0 = draw(family, curved, seed)
    usual = [evaluations(function, z0, beta, TOLERANCES, MOST) for beta in (0.5, 0.8)]
    better = [min(pair) for pair in zip(*usual, strict=True)]
    if not any(SHORT < count < math.inf for count in better):
        return []
    found = automatic_beta(lambda z, _: function(z), z0, num_steps=MOST // 2)
    taken = evaluations(function, z0, found.beta, TOLERANCES, 2 * MOST)
    rows = zip(TOLERANCES, better, taken, strict=True)
    return [(t, count, own + found.evaluations) for t, count, own in rows if SHORT < count < math.inf]


def assert_no_slower(family: str, curved: bool, seeds: range) -> int:
    rows = [(seed, *row) for seed in seeds for row in compared(family, curved, seed)]
    assert [row for row in rows if not row[3] <= DEARER * row[2]] == []
    return len(rows)


@pytest.mark.parametrize("curved", [False, True], ids=["linear", "tanh"])
@pytest.mark.parametrize("family", FAMILIES)
def test_auto_is_at_most_a_fifth_slower_than_the_better_of_the_usual_betas(family, curved):
    assert_no_slower(family, curved, range(8))


@pytest.mark.nightly
@pytest.mark.parametrize("curved", [False, True], ids=["linear", "tanh"])
@pytest.mark.parametrize("family", FAMILIES)
def test_auto_is_at_most_a_fifth_slower_on_new_maps_every_night(family, curved):
    first = int(torch.randint(2**40, ()))
    seeds = range(first, first + 60)
    if family in FAR_FROM_NORMAL:
        assert assert_no_slower(family, curved, seeds) > 0
        return
    # An estimate may fail on single maps: over 2000 of these rows 6 did. One map has three rows.
    rows = [row for seed in seeds for row in compared(family, curved, seed)]
    assert sum(not row[2] <= DEARER * row[1] for row in rows) <= max(3, len(rows) / 10)


@pytest.mark.parametrize("curved", [False, True], ids=["linear", "tanh"])
def test_auto_solves_a_triangular_map_whose_ritz_values_leave_the_strip(curved):
    generator = torch.Generator().manual_seed(0)
    upper = torch.triu(torch.randn(60, 60, generator=generator, dtype=torch.float64), 1)
    weight = 0.5 * upper + 0.3 * torch.eye(60, dtype=torch.float64)
    inputs = 0.05 * torch.randn(4, 60, generator=generator, dtype=torch.float64)

    def function(z: Any, args: Any) -> Any:
        return torch.tanh(z @ weight + inputs) if curved else z @ weight + inputs

    z0 = torch.zeros(4, 60, dtype=torch.float64)
    solution = solve(function, z0, solver=Reversible("auto"), adjoint=UnrolledAdjoint(), max_steps=300)
    assert float(solution.residual.max()) <= 1e-9
    assert solution.estimate is not None
    assert solution.estimate.evaluations == 2 * TRIAL_STEPS


def test_auto_is_several_times_faster_on_a_real_spectrum_and_slow_maps():
    weight = torch.diag(torch.linspace(-0.99, 0.99, 24, dtype=torch.float64))
    inputs = torch.linspace(-1, 1, 24, dtype=torch.float64)
    z0 = torch.zeros(24, dtype=torch.float64)
    found = automatic_beta(lambda z, args: z @ weight + inputs, z0, num_steps=400)
    usual, taken = (
        evaluations(lambda z: z @ weight + inputs, z0, beta, (1e-6,), 4000)[0] for beta in (USUAL, found.beta)
    )
    assert 1.2 < found.beta < optimal_beta(0.99, "real") + 0.05
    assert 4 * (taken + found.evaluations) <= usual
    assert "estimated" in found.reason


def test_auto_goes_below_the_usual_beta_for_imaginary_eigenvalues():
    turn = torch.tensor([[0.0, -1.6], [1.6, 0.0]], dtype=torch.float64)
    inputs = torch.ones(2, dtype=torch.float64)
    found = automatic_beta(lambda z, args: z @ turn + inputs, torch.zeros(2, dtype=torch.float64), num_steps=100)
    assert spectral_rate(1.6j, USUAL) > 1
    assert spectral_rate(1.6j, found.beta) <= 0.5


@pytest.mark.parametrize(("eigenvalue", "message"), [(1.2, "from 1 on"), (-1.5, "averaged map")])
def test_auto_refuses_where_no_beta_converges_and_says_what_was_seen(eigenvalue, message):
    diagonal = torch.tensor([eigenvalue, 0.3, -0.2], dtype=torch.float64)

    def function(z: Any, args: Any) -> Any:
        return diagonal * z + 1

    with pytest.raises(EstimateError, match=f"estimated, and with beta 0.5 the residual still grows.*{message}"):
        automatic_beta(function, torch.zeros(3, dtype=torch.float64), num_steps=20)


@pytest.mark.parametrize(("num_steps", "spent"), [(1, 2), (4, 2), (10, 4), (19, 6), (20, 8), (300, 8)])
def test_own_evaluations_are_few_for_short_solves(num_steps, spent):
    found = automatic_beta(lambda z, args: torch.tanh(0.3 * z + 1), torch.zeros(5), num_steps=num_steps)
    assert found.evaluations == spent
    assert found.beta == USUAL


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_auto_takes_a_usual_beta_in_every_dtype(dtype, scale):
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(16, 16, generator=generator) * 0.15).to(dtype)
    inputs = (scale * torch.randn(3, 16, generator=generator)).to(dtype)
    found = automatic_beta(
        lambda z, args: torch.tanh(z @ weight + inputs), torch.zeros(3, 16, dtype=dtype), num_steps=40
    )
    assert found.beta == USUAL


def test_what_shows_nothing_is_no_reason_to_fail():
    zero = torch.zeros(4, dtype=torch.float64)
    assert automatic_beta(lambda z, args: z / 2, zero, num_steps=30).beta == USUAL
    assert automatic_beta(lambda z, args: 1e-300 + z / 2, zero, num_steps=30).beta == USUAL
    assert automatic_beta(lambda z, args: z**4 + 1e100, zero, num_steps=30).beta == 0.5
    with pytest.raises(EstimateError, match="not finite at z0"):
        automatic_beta(lambda z, args: z / 0, zero, num_steps=30)


@pytest.mark.parametrize(
    "options", [{"num_steps": 0}, {"num_steps": 4, "rtol": 0.0}, {"num_steps": 4, "rtol": math.nan}]
)
def test_impossible_arguments_are_refused(options):
    with pytest.raises(ValueError, match="it must be"):
        automatic_beta(lambda z, args: z / 2, torch.zeros(3), **options)


@pytest.mark.parametrize("family", FAR_FROM_NORMAL)
def test_model_of_a_linear_map_repeats_its_first_steps_at_every_beta(family):
    function, z0 = draw(family, False, 3)
    points, values = [], []
    y = z = z0
    for _ in range(TRIAL_STEPS):
        for state in ("y", "z"):
            at = z if state == "y" else y
            points.append(at.flatten())
            values.append(function(at).flatten())
            y, z = (0.2 * y + 0.8 * function(z), z) if state == "y" else (y, 0.2 * z + 0.8 * function(y))
    model = ReducedModel.of(points, values, ROUNDOFF)
    for beta in (0.5, 0.8, 1.3):
        predicted = model.residuals(torch.tensor([beta], dtype=torch.float64), 3)[:, 0]
        y = z = z0
        for n in range(4):
            residual = (function(z) - z).norm() / (function(z0) - z0).norm()
            assert float(predicted[n]) == pytest.approx(float(residual), rel=1e-6)
            y = (1 - beta) * y + beta * function(z)
            z = (1 - beta) * z + beta * function(y)


def test_steps_until_reads_curves_and_goes_on_as_they_end():
    n = torch.arange(41, dtype=torch.float64)
    curves = torch.stack([0.5**n, 0.9**n, torch.ones_like(n), 1.1**n], dim=1)
    steps = steps_until(curves, 1e-6)
    assert steps[0] == 20
    assert float(steps[1]) == pytest.approx(math.log(1e-6) / math.log(0.9))
    assert steps[2:].tolist() == [math.inf, math.inf]
