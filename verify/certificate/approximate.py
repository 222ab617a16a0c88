"""Where a fixed point might be: float arithmetic only, for a certificate to start from. Nothing here is rigorous."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from verify.certificate.kernel.fixed_points import NORM_BITS, jacobian
from verify.certificate.linear_algebra import float_matrix
from verify.certificate.state_map import StateMap
from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.arithmetic.extended import Extended
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Program, Traced


PICARD_STEPS = 400
NEWTON_STEPS = 40
CLOSE = 2.0**-40
"""|f(z) - z| relative to |z| from which the certificate's own refinement takes over."""


_erf = np.frompyfunc(math.erf, 1, 1)


class Quick(Extended):
    """Longdouble with the error function of float64, which is near enough for a search."""

    def erf(self, x: Array) -> Array:
        """The error function."""
        return np.asarray(_erf(x)).astype(np.longdouble)


class FloatMap:
    """f in longdouble, on the state as one flat vector of float64; NaN where a rule cannot go on."""

    def __init__(self, traced: Traced) -> None:
        ops: Arithmetic = Quick()
        arrays = traced.arrays()
        fixed = {name: values for name, values in arrays.items() if name not in traced.state}
        self._ops = ops
        self._names = traced.state
        self._shapes = [arrays[name].shape for name in traced.state]
        self._forward = Program(traced.forward, ops, fixed)
        self.start: NDArray[np.float64] = np.concatenate([arrays[name].ravel() for name in traced.state])

    def value(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """f(z)."""
        sizes = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        parts = zip(self._names, np.split(z, sizes), self._shapes, strict=True)
        try:
            leaves = self._forward({name: part.reshape(shape) for name, part, shape in parts})
        except Undecided:
            return np.full(z.shape, np.nan)
        return np.concatenate([self._ops.to_float64(leaves[name]).ravel() for name in self._names])


def approximate_fixed_point(function: FloatMap, slopes: StateMap | None) -> NDArray[np.float64] | None:
    """A state with |f(z) - z| near rounding level, by averaged Picard iteration and then Newton's method, or None.

    Args:
        function: the map.
        slopes: the map in balls, for the Jacobian of Newton's method; None if n pullbacks are not affordable.
    """
    for weight in (1.0, 0.5, 0.1):
        z = function.start
        for _ in range(PICARD_STEPS):
            image = function.value(z)
            if not np.all(np.isfinite(image)):
                break
            if _is_close(image, z):
                return z
            z = z + weight * (image - z)
    return _newton(function, slopes) if slopes is not None else None


def _is_close(image: NDArray[np.float64], z: NDArray[np.float64]) -> bool:
    return bool(np.max(np.abs(image - z), initial=0.0) <= CLOSE * max(1.0, np.max(np.abs(z), initial=0.0)))


def _newton(function: FloatMap, slopes: StateMap) -> NDArray[np.float64] | None:
    z = function.start
    for _ in range(NEWTON_STEPS):
        image = function.value(z)
        if not np.all(np.isfinite(image)):
            return None
        if _is_close(image, z):
            return z
        system = _system(slopes, z)
        if system is None or not np.all(np.isfinite(system)) or np.linalg.matrix_rank(system) < z.size:
            return None
        z = z + np.linalg.solve(system, image - z)
    return None


def _system(slopes: StateMap, z: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """I - df/dz."""
    try:
        run = slopes.run("f", slopes.point(z))
    except Undecided:
        return None
    with flint_precision(NORM_BITS):
        (block,) = jacobian(slopes.machine, run, 1)
    return np.eye(z.size) - float_matrix(block)
