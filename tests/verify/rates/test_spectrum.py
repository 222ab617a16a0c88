"""ARPACK's eigenvalues, the dense ones and those of the estimators in torch agree."""

import numpy as np
import pytest
import torch

from revdeq._estimate import EstimateError, extreme_eigenvalues, lipschitz_constant
from verify import spectrum
from verify.spectrum import spectrum_of


def cell(dimension: int):
    generator = torch.Generator().manual_seed(dimension)
    weight = 0.8 * torch.randn(dimension, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
    inputs = torch.randn(2, dimension, generator=generator, dtype=torch.float64)

    def function(z, args):
        return torch.tanh(z @ weight.T + inputs)

    return function, torch.zeros(2, dimension, dtype=torch.float64)


def test_arpack_agrees_with_the_dense_spectrum(monkeypatch: pytest.MonkeyPatch):
    function, z = cell(30)
    full = spectrum_of(function, z)
    assert full.complete
    assert len(full.eigenvalues) == 60
    monkeypatch.setattr(spectrum, "DENSE_SIZE", 10)
    outer = spectrum_of(function, z)
    assert not outer.complete
    assert np.abs(outer.eigenvalues).max() == pytest.approx(np.abs(full.eigenvalues).max(), rel=1e-6)
    assert outer.eigenvalues.real.max() == pytest.approx(full.eigenvalues.real.max(), abs=1e-6)
    assert outer.eigenvalues.real.min() == pytest.approx(full.eigenvalues.real.min(), abs=1e-6)
    assert outer.lipschitz == pytest.approx(full.lipschitz, rel=1e-6)


def test_estimators_of_the_solver_agree_with_the_oracle():
    function, z = cell(120)
    oracle = spectrum_of(function, z)
    estimate = extreme_eigenvalues(function, z, rtol=1e-3, max_products=200)
    radius = float(np.abs(oracle.eigenvalues).max())
    assert estimate.radius == pytest.approx(radius, rel=1e-2)
    assert estimate.real_max == pytest.approx(float(oracle.eigenvalues.real.max()), abs=1e-2 * radius)
    assert estimate.imaginary_max == pytest.approx(float(oracle.eigenvalues.imag.max()), abs=1e-2 * radius)
    assert lipschitz_constant(function, z).value == pytest.approx(oracle.lipschitz, rel=1e-2)


def test_arpack_that_does_not_converge_raises(monkeypatch: pytest.MonkeyPatch):
    def fails(*args, **kwargs):
        raise spectrum.ArpackNoConvergence("no convergence", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(spectrum, "DENSE_SIZE", 10)
    monkeypatch.setattr(spectrum, "eigs", fails)
    with pytest.raises(EstimateError, match="lower count or raise rtol"):
        spectrum_of(*cell(30))


@pytest.mark.parametrize("budget", [{"count": 0}, {"rtol": 0.0}])
def test_impossible_requests_are_refused(budget):
    with pytest.raises(ValueError, match="at least 1"):
        spectrum_of(*cell(4), **budget)
