"""Eigenvalues of df/dz by ARPACK and of small cells in full: the oracle for the estimates that `revdeq` makes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, svds

from revdeq._estimate import EstimateError, Jacobian
from revdeq._tree import Tree


Vector = npt.NDArray[np.float64]

DENSE_SIZE = 400
"""Components up to which the whole Jacobian is formed: ARPACK needs a subspace smaller than the space."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of df/dz at one point, and its largest singular value. Estimates where the Jacobian was not formed.

    Attributes:
        eigenvalues: all of them, or those of largest modulus and of largest and smallest real part.
        lipschitz: largest singular value.
        complete: whether all eigenvalues are there.
    """

    eigenvalues: npt.NDArray[np.complex128]
    lipschitz: float
    complete: bool


def spectrum_of(
    function: Callable[[Tree, Tree], Tree], z: Tree, args: Tree = (), *, count: int = 8, rtol: float = 1e-6
) -> Spectrum:
    """Return the eigenvalues of df/dz at z, in full up to `DENSE_SIZE` components and their outer ones beyond.

    Args:
        function: callable of (z, args) that returns the structure of z.
        z: the point, a tensor or pytree of tensors.
        args: any pytree.
        count: how many eigenvalues of each kind ARPACK is asked for.
        rtol: its relative tolerance.

    Raises:
        EstimateError: ARPACK did not converge, or something is not finite.
        ValueError: count < 1 or rtol <= 0.

    References:
        Lehoucq, Sorensen, Yang, "ARPACK Users' Guide" (1998), doi:10.1137/1.9780898719628.
    """
    if count < 1 or not (rtol > 0):
        raise ValueError(f"count is {count} and rtol {rtol!r}; they must be at least 1 and positive")
    jacobian = Jacobian(function, z, args)
    if jacobian.size <= DENSE_SIZE:
        rows = [jacobian.transposed(row).cpu() for row in torch.eye(jacobian.size, dtype=torch.float64)]
        dense = torch.stack(rows).numpy()
        return Spectrum(np.linalg.eigvals(dense).astype(np.complex128), float(np.linalg.norm(dense, 2)), True)
    operator = _Transposed(jacobian)
    options: dict[str, Any] = {"v0": jacobian.start(0).cpu().numpy(), "tol": rtol}
    try:
        found = [
            eigs(operator, k=count, which=which, return_eigenvectors=False, **options)
            for which in ("LM", "LR", "SR", "LI")
        ]
        largest = np.asarray(svds(operator, k=1, return_singular_vectors=False, **options), dtype=np.float64)
    except ArpackNoConvergence as failure:
        raise EstimateError(
            f"ARPACK did not converge to {count} eigenvalues of df/dz with rtol = {rtol:g}: lower count or raise rtol"
        ) from failure
    return Spectrum(np.concatenate(found).astype(np.complex128), float(largest[0]), False)


class _Transposed(LinearOperator):
    """J^T as scipy sees it; its adjoint is J."""

    def __init__(self, jacobian: Jacobian) -> None:
        self._jacobian = jacobian
        super().__init__(np.dtype(np.float64), (jacobian.size, jacobian.size))

    def _matvec(self, x: Vector) -> Vector:
        return self._jacobian.transposed(_column(x)).cpu().numpy()

    def _rmatvec(self, x: Vector) -> Vector:
        return self._jacobian.times(_column(x)).cpu().numpy()


def _column(x: Vector) -> torch.Tensor:
    # ARPACK hands over views of its workspace, which it overwrites.
    return torch.from_numpy(x.reshape(-1).copy())
