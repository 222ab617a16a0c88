"""What rounding leaves of a batch of maps: the error of a half step, and the floor at which the iteration stays."""

import numpy as np
import numpy.typing as npt
import torch

from revdeq.rates import forward_majorant
from verify.problems.families import Batch


Floats = npt.NDArray[np.float64]


def local_error(batch: Batch, beta: float, dtype: torch.dtype, size: Floats, *, typical: bool) -> Floats:
    """Return what one half step in this dtype adds to states of norm `size`: u (|a||y| + beta |f| + |y'|) + beta eps_f.

        eps_f = u t (||W|| |z| + |x|),     t = d + 3 as a bound, its square root as the typical value

    The d + 3 roundings are those of the dot products, the sum with x and tanh; independent ones add up to the root.

    Args:
        batch: maps, C of them in dimension d.
        beta: relaxation parameter.
        dtype: of states and of f.
        size: norms of the states, shape (C,).
        typical: whether the typical value is asked for and not the bound.

    References:
        (T7). Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41
        (2019) A2815-A2835.
    """
    unit_roundoff = torch.finfo(dtype).eps / 2
    terms = batch.weights.shape[1] + 3.0
    inputs = batch.inputs.norm(dim=1).numpy()
    absolute = torch.linalg.matrix_norm(batch.weights.abs(), 2).numpy()
    function_error = (terms**0.5 if typical else terms) * (absolute * size + inputs)
    return unit_roundoff * ((abs(1 - beta) + beta + 1) * size + beta * function_error)


def forward_floor(beta: float, lipschitz: Floats, rate: Floats, local: Floats) -> Floats:
    """Return the norm of the error (y, z) that rounding leaves.

    (I - F)^-1 (l, (1 + c) l) where the majorant F converges; 3 l / (1 - rate)^2, which allows for a double eigenvalue,
    where only the spectrum makes the iteration converge; l itself where nothing does.

    Args:
        beta: relaxation parameter.
        lipschitz: constants k, shape (C,).
        rate: spectral rates, shape (C,).
        local: what a half step adds, shape (C,).
    """
    c = beta * lipschitz
    sure = abs(1 - beta) + c < 1
    identity = np.eye(2)
    system = np.where(sure[:, None, None], identity - forward_majorant(beta, torch.tensor(lipschitz)).numpy(), identity)
    source = np.stack([local, (1 + c) * local], axis=1)
    bound = np.linalg.norm(np.linalg.solve(system, source[:, :, None])[:, :, 0], axis=1)
    slack = np.where(rate < 1, 1 - rate, 1.0)
    return np.where(sure, bound, np.where(rate < 1, 3 * local / slack**2, local))
