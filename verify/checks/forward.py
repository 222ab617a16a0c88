"""Claim: the result is the N-step iterate."""

from __future__ import annotations

from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.ratio import ratio_row
from verify.trial.trial import Trial, cost


ADJOINTS: tuple[Adjoint, ...] = ("reversible", "unrolled")


def check_forward(trial: Trial) -> list[Measurement]:
    """Compare z1 and y1 with the multiprecision iterates.

        R = RMS(z1 - z_N) / sig(z_N),      likewise y

    Returns:
        A row per state, and in float64 per adjoint.

    How this can fail: another number of steps, another beta, a narrower dtype inside, a state returned before its last
    update, samples that mix. It cannot see a fault below rounding, nor one that comes only with tolerances.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the forward iteration; (THEORY 1, 4).
    """
    case = trial.case
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    scale = trial.scale()
    rows: list[Measurement] = []
    for adjoint in ADJOINTS if case.dtype == "float64" else ADJOINTS[:1]:
        seen = trial.observe(adjoint)
        for leaf, got, state, spread in (
            ("z1", seen.z1, expected.z, scale.forward_z),
            ("y1", seen.y1, expected.y, scale.forward_y),
        ):
            uncertainty = expected.uncertainty[leaf[0]]
            rows.append(
                ratio_row(
                    trial,
                    "forward",
                    leaf,
                    got,
                    state,
                    scale=spread,
                    uncertainty=uncertainty,
                    adjoint=adjoint,
                    **cost(seen),
                )
            )
    return rows
