"""The grid (problem, beta, k, dtype, N) measured with the product's own steps: one batch of maps per beta and dtype."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from revdeq import Reversible
from revdeq.rates import reverse_majorant, worst_rate
from revdeq.solver.reversible import Coupled
from verify.problems.families import FIXTURES, Batch, Fixture, batch_of
from verify.regression import fit_rates
from verify.rounding.floor import forward_floor, local_error


Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """What to measure: every combination of these.

    Attributes:
        fixtures: families of maps.
        constants: contraction constants k.
        betas: relaxation parameters.
        dtypes: dtypes of f and of the states alike, so that the floor is seen.
        steps: numbers of steps N at which the errors are read.
        dimension: of each state.
    """

    fixtures: Sequence[Fixture] = FIXTURES
    constants: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    betas: Sequence[float] = (0.25, 0.3, 0.5, 0.75, 0.8, 0.95, 1.05, 1.2, 1.25, 1.5, 1.75, 1.9)
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32, torch.bfloat16)
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    dimension: int = 8

    @property
    def cells(self) -> int:
        """Number of (problem, beta, k, dtype, N) combinations."""
        return len(self.fixtures) * len(self.constants) * len(self.betas) * len(self.dtypes) * len(self.steps)


def rate_table(grid: Grid) -> pd.DataFrame:
    """Measure every cell of the grid from coupled states along the slowest mode, so that its rate shows at once.

    Returns:
        One row a cell with the columns problem, spectrum, normal, linear, beta, k, dtype, N and
            error                    |(y_N, z_N) - (z*, z*)| over the same at the start
            floor, floor_typical     bound and estimate of what rounding leaves of it, from the majorant of k
            rate_predicted           from the eigenvalues of df/dz at z*
            rate_worst               from k
            rate_measured            fitted above the typical floor, NaN where the points are too few
            log_uncertainty, points  of the fit
            reconstruction           |z_0 rebuilt - z_0| over the same, after reversing N steps
            reconstruction_estimate  the same from the reverse majorant of k
    """
    batch = batch_of(grid.fixtures, grid.constants, grid.dimension)
    spectra = {fixture.name: fixture for fixture in grid.fixtures}
    maps = pd.DataFrame(
        {
            "problem": batch.names,
            "spectrum": [spectra[name].spectrum for name in batch.names],
            "normal": [spectra[name].normal for name in batch.names],
            "linear": [spectra[name].linear for name in batch.names],
            "k": batch.constants,
        }
    )
    frames = [_measure(batch, maps, grid.steps, beta, dtype) for beta in grid.betas for dtype in grid.dtypes]
    return pd.concat(frames, ignore_index=True)


def _measure(batch: Batch, maps: pd.DataFrame, steps: Sequence[int], beta: float, dtype: torch.dtype) -> pd.DataFrame:
    slowest, y, z = batch.slowest(beta, dtype)
    rate = slowest.numpy()
    distances, reconstruction = _iterate(batch, y, z, steps, beta, dtype)
    initial = distances[:, 0]
    errors = distances / initial[:, None]
    size = batch.fixed_point.norm(dim=1).numpy() + initial
    bound = local_error(batch, beta, dtype, size, typical=False)
    typical = local_error(batch, beta, dtype, size, typical=True)
    typical_floor = forward_floor(beta, batch.lipschitz, rate, typical) / initial
    fit = fit_rates(errors, typical_floor)
    growth = reverse_growth(beta, batch.lipschitz, bound, max(steps)) / initial[:, None]
    shared = maps.assign(
        beta=beta,
        dtype=str(dtype).removeprefix("torch."),
        floor=forward_floor(beta, batch.lipschitz, rate, bound) / initial,
        floor_typical=typical_floor,
        rate_predicted=rate,
        rate_worst=worst_rate(beta, torch.tensor(batch.lipschitz)).numpy(),
        rate_measured=fit.rate,
        log_uncertainty=fit.log_uncertainty,
        points=fit.points,
    )
    columns = [
        shared.assign(
            N=n, error=errors[:, n], reconstruction=reconstruction[n] / initial, reconstruction_estimate=growth[:, n]
        )
        for n in steps
    ]
    return pd.concat(columns, ignore_index=True)


def _iterate(
    batch: Batch, y: Tensor, z: Tensor, steps: Sequence[int], beta: float, dtype: torch.dtype
) -> tuple[Floats, dict[int, Floats]]:
    """Return the errors (C, N+1) of (y, z) and, for each N asked for, the error of z_0 when N steps are reversed."""
    function = batch.function(dtype)

    def f(leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (function(leaves[0]),)

    def error(state: Coupled) -> Tensor:
        states = solver.coupled(state)[0], solver.estimate(state)[0]
        y_error, z_error = ((leaf.to(torch.float64) - batch.fixed_point).norm(dim=1) for leaf in states)
        return torch.hypot(y_error, z_error)

    solver = Reversible(beta, state_dtype=dtype).bound_to(None, max(steps))
    state = Coupled(solver.init((y.to(dtype),)).y, solver.init((z.to(dtype),)).z)
    errors = [error(state)]
    reconstruction: dict[int, Floats] = {}
    for n in range(1, max(steps) + 1):
        state = solver.step(f, state, f(solver.estimate(state)), n - 1)
        errors.append(error(state))
        if n in steps:
            back = state
            for _ in range(n):
                before = solver.undo_z(back.z, f(solver.coupled(back)))
                back = Coupled(solver.undo_y(back.y, f(solver.half_steps.values(before))), before)
            reconstruction[n] = (solver.estimate(back)[0].to(torch.float64) - z).norm(dim=1).numpy()
    return torch.stack(errors, dim=1).numpy(), reconstruction


def reverse_growth(beta: float, lipschitz: Floats, local: Floats, steps: int) -> Floats:
    """Return the majorant's |z_0 rebuilt - z_0| after reversing N steps, shape (C, steps + 1).

        sum_{j<N} Rv^j [[1, A c], [0, 1]] (A l + r),     A = 1/|a|,     r = A l

    The factor in the middle carries the error of the rebuilt z into y within the same reversed step.

    Args:
        beta: relaxation parameter, different from 1.
        lipschitz: constants k, shape (C,).
        local: what a half step adds, shape (C,).
        steps: largest N.

    References:
        (T7).
    """
    amplification, c = 1 / abs(1 - beta), beta * lipschitz
    reverse = reverse_majorant(beta, torch.tensor(lipschitz)).numpy()
    source = 2 * amplification * local
    vector = np.stack([(1 + amplification * c) * source, source], axis=1)
    growth = np.zeros((len(lipschitz), steps + 1))
    # What exceeds the range of float64 is infinite: all digits were lost long before.
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(1, steps + 1):
            growth[:, n] = growth[:, n - 1] + vector[:, 1]
            vector = np.nan_to_num((reverse @ vector[:, :, None])[:, :, 0], nan=np.inf)
    return growth
