"""Between matrices of balls and of float64."""

from __future__ import annotations

import numpy as np
from flint import arb_mat
from numpy.typing import NDArray


def exact_matrix(values: NDArray[np.float64]) -> arb_mat:
    """An arb_mat with float64 entries, exactly."""
    return arb_mat(values.shape[0], values.shape[1], values.ravel().tolist())


def float_matrix(values: arb_mat) -> NDArray[np.float64]:
    """The float64 nearest to every midpoint."""
    return np.array([float(value) for value in values.entries()]).reshape(values.nrows(), values.ncols())


def spectral_vectors(values: arb_mat) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Float64 eigenvalues and eigenvectors, as columns, of the midpoints; nothing rigorous."""
    if values.nrows() == 0:
        return np.zeros(0, dtype=np.complex128), np.zeros((0, 0), dtype=np.complex128)
    found, vectors = np.linalg.eig(float_matrix(values))
    return found.astype(np.complex128), vectors.astype(np.complex128)
