"""The record that keeps the final states alone and undoes every step from them, unchecked: for measuring reversal."""

import math
from typing import NamedTuple

import torch

from revdeq._residual import joint_norm
from revdeq._tree import Leaves
from revdeq.adjoint.record import Record, Way
from revdeq.solver.reversible import Coupled


class End(NamedTuple):
    """The final states.

    Attributes:
        y: leaves of y_N.
        z: leaves of z_N.
    """

    y: Leaves
    z: Leaves


class Plain(Record):
    """Keeps the final states; what rounding did to the gradient is estimated, see `gradient_error_estimate`."""

    def evaluated(self, k: int, at: Leaves, value: Leaves) -> None:
        """See `Record.evaluated`."""

    def kept(self, end: Coupled, num_steps: int) -> End:
        """See `Record.kept`."""
        return End(end.y, end.z)

    def go_back(self, kept: End, way: Way) -> None:
        """See `Record.go_back`."""
        pullback, steps, mark = way.pullback, len(way.masks), way.pullback.mark()
        end_norm = joint_norm((*pullback.y, *pullback.z))
        y, z = kept
        for n in reversed(range(steps)):
            active, ours = way.masks[n], n < steps - 1
            _, z = pullback.undoing(2 * n + 1, way.seen_at_y(y, z, n), z, active, ours=ours)
            _, y = pullback.undoing(2 * n, way.replay.narrow(z), y, active, ours=ours)
        found = (*y, *z, *pullback.y, *pullback.z, *pullback.inputs())
        health = way.health
        health.verified = False
        if not all(bool(torch.isfinite(t).all()) for t in found if t is not None):
            # Numbers that left the range of their dtypes are never returned: all steps are taken again, forwards.
            health.repeated_segments = 1
            pullback.return_to(mark)
            seen, _ = way.repeated(way.solver.init(way.z0), range(steps), way.masks)
            for _ in way.back_through(range(steps), seen):
                pass
            return
        moved = joint_norm(tuple(r - s for r, s in zip((*y, *z), (*(way.y0 or way.z0), *way.z0), strict=True)))
        numbers = torch.stack((moved, joint_norm((*kept.y, *kept.z)), joint_norm((*pullback.y, *pullback.z)), end_norm))
        error, scale, start, finish = numbers.tolist()
        reconstruction, decay = error / scale if scale > 0 else error, start / finish if finish > 0 else 0.0
        health.reconstruction_error, health.start_cotangent = reconstruction, decay
        health.reversal_error = gradient_error_estimate(reconstruction, decay, steps, way.solver.betas.retained(steps))


def gradient_error_estimate(
    reconstruction_error: float, start_cotangent: float, num_steps: int, retained: float
) -> float:
    """Return the estimated relative error that reversal causes in the sums of gradients over the steps.

    A step backwards multiplies volumes by 1/a^2 for each pair of components (det = a^(2d) for every f), so errors grow
    by at least 1/|a| in their worst direction: of the error E found at the start, k reversed steps had at most
    E |a|^(N-k). With cotangents that shrink as s^k, s fitted to their norms at the two ends,

        error ~ sum_k s^k E |a|^(N-k) / sum_k s^k,      k = 1 ... N.

    The start state may be lost (E of order 1) while sums over steps are good, because early steps weigh little. Where
    the iteration expands (s > 1) the states at the start are smaller than z_N, to whose norm E refers, by the factor by
    which cotangents grow: then E s^N stands for E. It is an estimate for all leaves and samples together: one leaf of
    the first steps, one sample or a kink may fare far worse.

    Args:
        reconstruction_error: E, the relative error of the rebuilt start state.
        start_cotangent: s^N, norm of the cotangent at the start over its norm at the end.
        num_steps: N.
        retained: |a| = |1 - beta|; of betas that differ, the geometric mean.

    Returns:
        A number >= 0; inf where a measurement is not finite.

    References:
        The weights are those of the adjoint recursion in McCallum, Arora, Foster, arXiv 2509.12917. (T1, M1)
    """
    if not (math.isfinite(reconstruction_error) and math.isfinite(start_cotangent)):
        return math.inf
    if reconstruction_error == 0.0 or num_steps == 0:
        return 0.0
    decay = start_cotangent ** (1.0 / num_steps)
    # Relative to the greatest weight, so that nothing overflows: the first step's, or the last one's.
    steps = [k if decay <= 1 else k - num_steps for k in range(1, num_steps + 1)]
    weights = [decay**k for k in steps]
    errors = [reconstruction_error * retained ** (num_steps - k) for k in range(1, num_steps + 1)]
    total = sum(weights)
    mean = sum(w * e for w, e in zip(weights, errors, strict=True)) / total if total > 0 else errors[0]
    return max(start_cotangent, 1.0) * mean
