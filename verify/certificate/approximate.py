"""Where a fixed point might be: float arithmetic only, for a certificate to start from. Nothing here is rigorous."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic import Arithmetic
from verify.reference.arithmetic.extended import Extended
from verify.reference.graph import Program, Traced


PICARD_STEPS = 400
NEWTON_STEPS = 40
CLOSE = 2.0**-40
"""|f(z) - z| relative to |z| from which the certificate's own refinement takes over."""


class FloatMap:
    """f and its VJP in longdouble, on the state as one flat vector of float64."""

    def __init__(self, traced: Traced) -> None:
        ops: Arithmetic = Extended()
        arrays = traced.arrays()
        fixed = {name: values for name, values in arrays.items() if name not in traced.state}
        self._ops = ops
        self._names = traced.state
        self._shapes = [arrays[name].shape for name in traced.state]
        self._cotangents = [name.replace("z0", "cotangent", 1) for name in traced.state]
        self._forward = Program(traced.forward, ops, fixed)
        self._pullback = Program(traced.vjp.restricted(traced.state), ops, fixed)
        self.start: NDArray[np.float64] = np.concatenate([arrays[name].ravel() for name in traced.state])

    def _split(self, z: NDArray[np.float64], names: Any) -> dict[str, Any]:
        sizes = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        parts = np.split(z, sizes)
        return {name: part.reshape(shape) for name, part, shape in zip(names, parts, self._shapes, strict=True)}

    def _join(self, leaves: dict[str, Any]) -> NDArray[np.float64]:
        return np.concatenate([self._ops.to_float64(leaves[name]).ravel() for name in self._names])

    def value(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """f(z)."""
        return self._join(self._forward(self._split(z, self._names)))

    def jacobian(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """df/dz, one VJP for each row."""
        pullback = self._pullback.at(self._split(z, self._names))
        rows = [pullback(self._split(row, self._cotangents)) for row in np.eye(z.size)]
        return np.stack([self._join(row) for row in rows]) if rows else np.zeros((0, 0))


def approximate_fixed_point(function: FloatMap, newton: bool) -> NDArray[np.float64] | None:
    """A state with |f(z) - z| near rounding level, by averaged Picard iteration and then Newton's method, or None.

    Args:
        function: the map.
        newton: whether n VJPs for a Jacobian are affordable.
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
    return _newton(function) if newton else None


def _is_close(image: NDArray[np.float64], z: NDArray[np.float64]) -> bool:
    return bool(np.max(np.abs(image - z), initial=0.0) <= CLOSE * max(1.0, np.max(np.abs(z), initial=0.0)))


def _newton(function: FloatMap) -> NDArray[np.float64] | None:
    z = function.start
    for _ in range(NEWTON_STEPS):
        image = function.value(z)
        if not np.all(np.isfinite(image)):
            return None
        if _is_close(image, z):
            return z
        system = np.eye(z.size) - function.jacobian(z)
        if not np.all(np.isfinite(system)) or np.linalg.matrix_rank(system) < z.size:
            return None
        z = z + np.linalg.solve(system, image - z)
    return None
