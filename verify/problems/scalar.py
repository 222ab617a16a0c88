"""Scalar equations of celestial mechanics, combinatorics and hydraulics, a few of each side by side."""

from __future__ import annotations

import math
from typing import Any, cast

import mpmath
import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

from verify.problems import data
from verify.problems.operations import Operations
from verify.problems.problem import Float64Array, Problem
from verify.problems.scope import Declared, Scope


_ECCENTRICITY = np.array([[0.25], [0.75]])
_MEAN_ANOMALY = np.array([[0.5, 1.0, 2.0, 3.0], [0.25, 1.25, 2.25, -1.5]])
_BESSEL_TERMS = 400

_LAMBERT_X = np.array([[0.25, 0.125, 0.5], [0.75, 0.625, 0.875]])

_ROUGHNESS = np.array([[2.0**-10, 2.0**-8], [2.0**-12, 2.0**-6]])
_REYNOLDS = np.array([[0.5, 2.5], [0.40625, 12.0]])
_COLEBROOK_SLOPE = 2 / math.log(10)
_COLEBROOK_LEAST = 2.0


def _context(digits: int) -> Any:
    context: Any = mpmath.MPContext()
    context.dps = digits + 10
    return context


def _kepler_statement(ops: Operations, z: Any, args: Any) -> Any:
    return ops.add(args["mean_anomaly"], ops.multiply(args["eccentricity"], ops.sin(z)))


def _kepler_answer(digits: int) -> NDArray[Any]:
    context = _context(digits)

    def anomaly(e: float, mean: float) -> Any:
        def excess(x: Any) -> Any:
            return x - e * context.sin(x) - mean

        return context.findroot(excess, mean)

    eccentricity = np.broadcast_to(_ECCENTRICITY, _MEAN_ANOMALY.shape)
    return np.asarray(np.frompyfunc(anomaly, 2, 1)(eccentricity, _MEAN_ANOMALY))


def kepler_by_bessel_series(eccentricity: Float64Array, mean_anomaly: Float64Array) -> Float64Array:
    """The eccentric anomaly E = M + sum_{n>=1} (2/n) J_n(n e) sin(n M), by scipy's Bessel functions.

    The terms fall like c^n with c = e exp(sqrt(1-e^2)) / (1 + sqrt(1-e^2)); 400 of them reach 1e-20 for e <= 0.75.

    Args:
        eccentricity: e in [0, 0.75], broadcast against mean_anomaly.
        mean_anomaly: M in radians.

    Returns:
        E in radians.

    References:
        Watson, A Treatise on the Theory of Bessel Functions, 2nd ed., Cambridge (1944), section 17.2.
    """
    n = np.arange(1, _BESSEL_TERMS + 1)
    coefficients = 2 / n * scipy.special.jv(n, n * eccentricity[..., None])
    return np.asarray(mean_anomaly + np.sum(coefficients * np.sin(n * mean_anomaly[..., None]), axis=-1))


def kepler() -> Problem:
    """Kepler's equation E = M + e sin E for two eccentricities and four mean anomalies each; k = e."""
    cotangent_z, cotangent_y = data.cotangents(21, _MEAN_ANOMALY.shape)
    return Problem(
        name="kepler",
        title="Kepler's equation, e = 0.25 and 0.75",
        source="Danby, Fundamentals of Celestial Mechanics, 2nd ed., Willmann-Bell (1988), section 6.6",
        statement=_kepler_statement,
        z0=np.array([[0.5, 1.5, 2.0, 2.5], [1.0, -0.5, 2.0, 0.25]]),
        args={"eccentricity": _ECCENTRICITY, "mean_anomaly": _MEAN_ANOMALY},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=0.75,
        contraction_kind="exact",
        spectrum="nonlinear",
        closed_form=_kepler_answer,
        answer_source="mpmath.findroot",
        oracle_float64=lambda: kepler_by_bessel_series(_ECCENTRICITY, _MEAN_ANOMALY),
        oracle_source="Bessel series with scipy.special.jv",
    )


def _lambert_statement(ops: Operations, z: Any, args: Any) -> Any:
    return ops.multiply(args["x"], ops.exp(ops.negative(z)))


def _lambert_answer(digits: int) -> NDArray[Any]:
    context = _context(digits)
    return np.asarray(np.frompyfunc(lambda x: context.lambertw(x).real, 1, 1)(_LAMBERT_X))


def lambert_w() -> Problem:
    """Lambert's W: w = x exp(-w), the solution of w exp(w) = x; k = max x on w >= 0, where the iteration lives."""
    cotangent_z, cotangent_y = data.cotangents(23, _LAMBERT_X.shape)
    return Problem(
        name="lambert-w",
        title="Lambert W as the fixed point of x exp(-w)",
        source="Corless, Gonnet, Hare, Jeffrey, Knuth, On the Lambert W function, doi:10.1007/BF02124750, eq. 1.5",
        statement=_lambert_statement,
        z0=np.array([[0.5, 0.125, 1.0], [0.25, 1.5, 0.75]]),
        args={"x": _LAMBERT_X},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=0.875,
        contraction_kind="exact",
        spectrum="nonlinear",
        domain="w >= 0",
        closed_form=_lambert_answer,
        answer_source="mpmath.lambertw",
        oracle_float64=lambda: np.asarray(scipy.special.lambertw(_LAMBERT_X).real, dtype=np.float64),
        oracle_source="scipy.special.lambertw",
    )


def _colebrook_statement(ops: Operations, z: Any, args: Any) -> Any:
    rough = ops.divide(args["roughness"], 3.7)
    smooth = ops.divide(ops.multiply(2.51e-4, z), args["reynolds"])
    return ops.multiply(-_COLEBROOK_SLOPE, ops.log(ops.add(rough, smooth)))


def _colebrook_answer(digits: int) -> NDArray[Any]:
    # With u = r + s x the equation x = -c log u becomes u/(s c) exp(u/(s c)) = exp(r/(s c))/(s c).
    context = _context(digits)
    c, small, rough_divisor = (context.mpf(value) for value in (_COLEBROOK_SLOPE, 2.51e-4, 3.7))

    def conductance(roughness: float, reynolds: float) -> Any:
        r, s = context.mpf(roughness) / rough_divisor, small / context.mpf(reynolds)
        u = s * c * context.lambertw(context.exp(r / (s * c)) / (s * c)).real
        return (u - r) / s

    return np.asarray(np.frompyfunc(conductance, 2, 1)(_ROUGHNESS, _REYNOLDS))


def _colebrook_oracle() -> Float64Array:
    def root(roughness: float, reynolds: float) -> float:
        def excess(x: float) -> float:
            return x + _COLEBROOK_SLOPE * math.log(roughness / 3.7 + 2.51e-4 * x / reynolds)

        return float(cast(float, scipy.optimize.brentq(excess, 1.0, 20.0, xtol=1e-15)))

    return np.asarray(np.vectorize(root)(_ROUGHNESS, _REYNOLDS), dtype=np.float64)


def colebrook() -> Problem:
    """Colebrook and White's pipe friction: x = -2 log10(roughness/3.7 + 2.51 x/Re), x = 1/sqrt(friction factor).

    `reynolds` is in units of 10^4; `roughness` is relative to the diameter. On x >= 2 the slope is at most
    c s / (r + 2 s), c = 2/ln 10, s = 2.51e-4/reynolds, r = roughness/3.7.
    """
    cotangent_z, cotangent_y = data.cotangents(25, _ROUGHNESS.shape)
    slope = 2.51e-4 / _REYNOLDS
    bound = float(np.max(_COLEBROOK_SLOPE * slope / (_ROUGHNESS / 3.7 + _COLEBROOK_LEAST * slope)))
    return Problem(
        name="colebrook",
        title="Colebrook-White pipe friction",
        source="Colebrook, Turbulent flow in pipes, J. Inst. Civ. Eng. 11 (1939) 133, doi:10.1680/ijoti.1939.13150",
        statement=_colebrook_statement,
        z0=np.array([[4.0, 6.0], [5.0, 3.5]]),
        args={"roughness": _ROUGHNESS, "reynolds": _REYNOLDS},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=math.nextafter(bound * (1 + 1e-12), math.inf),
        contraction_kind="bound",
        spectrum="nonlinear",
        domain="x >= 2",
        closed_form=_colebrook_answer,
        answer_source="mpmath.lambertw (Keady, J. Hydraul. Eng. 124 (1998) 96)",
        oracle_float64=_colebrook_oracle,
        oracle_source="scipy.optimize.brentq",
    )


PROBLEMS: Declared = {
    "kepler": (kepler, Scope(betas=(1.2,), targets=True, bitwise=True)),
    "lambert-w": (
        lambert_w,
        Scope(
            outside={1.9: "the iteration diverges, and x exp(-z) takes its states out of every range of numbers"},
        ),
    ),
    "colebrook": (colebrook, Scope(straight=False)),
}
