"""Claim: the gradient of every leaf is the gradient of the N-step map."""

from __future__ import annotations

import math

from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.observation import Binding, Observation
from verify.trial.ratio import ratio_row, reversal_loses_the_states
from verify.trial.trial import Trial, cost


ADJOINTS: tuple[Adjoint, ...] = ("reversible", "default", "unrolled")
BINDINGS: tuple[Binding, ...] = ("module", "closure")


def check_gradient(trial: Trial) -> list[Measurement]:
    """Compare the gradient of each leaf with the multiprecision gradient of the same N steps.

        R = RMS(g - dL/dleaf) / sig(leaf),      L = <cotangent_z, z1> + <cotangent_y, y1>

    Returns:
        A row per adjoint and leaf; "failed" where a leaf got no gradient.

    How this can fail: a lost term, leaf or cotangent, a wrong factor, the implicit gradient in place of this one, sums
    in a narrow dtype. Only rows with power below 2^-20 see a dropped term; bfloat16 rows see rounding alone, and rows
    of a reversal that is predicted to lose the states see nothing.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the reversible backward pass; (THEORY 1, M1).
    """
    return [row for adjoint in _adjoints(trial) for row in _rows(trial, "gradient", adjoint, trial.observe(adjoint))]


def check_bindings(trial: Trial) -> list[Measurement]:
    """Compare the gradients of module parameters and of captured tensors, as `check_gradient` does those of args.

    Returns:
        A row per binding and leaf, the leaf "module args.W" or "closure args.W".

    How this can fail: the adjoint differentiates what it is passed and not what f reads.

    References:
        The reentrant form of torch.utils.checkpoint loses captured tensors in the same way (its documentation).
    """
    rows: list[Measurement] = []
    for binding in BINDINGS:
        rows += _rows(trial, "bindings", "reversible", trial.observe("reversible", binding), f"{binding} ")
    return rows


def _adjoints(trial: Trial) -> tuple[Adjoint, ...]:
    """All three; the unrolled one, a yardstick, only where states and f have one dtype of at least float32."""
    plain = trial.case.dtype == trial.case.state_dtype and trial.case.dtype != "bfloat16"
    return ADJOINTS if plain else ADJOINTS[:2]


def _rows(trial: Trial, check: str, adjoint: Adjoint, seen: Observation, prefix: str = "") -> list[Measurement]:
    case = trial.case
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    scale = trial.scale("unrolled" if adjoint == "unrolled" else "reversible")
    spoilt = adjoint == "reversible" and reversal_loses_the_states(trial)
    return [
        ratio_row(
            trial,
            check,
            prefix + leaf,
            seen.gradients.get(leaf),
            gradient,
            scale=scale.gradient[leaf],
            uncertainty=expected.uncertainty[leaf],
            adjoint=adjoint,
            least_power=math.inf if spoilt else 0.0,
            target="n-step",
            **cost(seen),
        )
        for leaf, gradient in expected.gradient.items()
    ]
