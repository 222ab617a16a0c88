"""What a subject was asked for in a case of a method, with what it chose itself, as the reference wants it."""

from __future__ import annotations

import torch

from verify.case import Case
from verify.checks._where import leaf_shapes
from verify.methods import METHODS, BetasTable
from verify.plan import Place
from verify.reference.method_run import Asked
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.observation import Observation
from verify.trial.ratio import ratio_row
from verify.trial.trial import STOPS, Trial, cost


def method_cases(name: str, device: str) -> tuple[Case, ...]:
    """Where a method is measured: each of its settings in each dtype that has a tolerance.

    Args:
        name: of the method.
        device: device type.
    """
    return tuple(
        Case(problem, beta, steps, dtype, dtype, device, name)
        for problem, beta, steps in METHODS[name].settings
        for dtype in STOPS
    )


def asked(trial: Trial, seen: Observation, phantom: tuple[int, float] | None = None) -> Asked:
    """The solve of an observation.

    Args:
        trial: the case.
        seen: the observation, which says what the subject chose.
        phantom: as in `Asked`.

    Raises:
        ValueError: the subject does not say what it chose, or says what cannot be.
    """
    case, method = trial.case, METHODS[trial.case.solver]
    samples = len(trial.problem.z0)
    num_steps = (case.num_steps,) * samples
    if method.to_tolerance:
        num_steps = tuple(int(n) for n in seen.num_steps.reshape(-1).expand(samples).tolist())
        if not all(0 <= n <= case.num_steps for n in num_steps):
            raise ValueError(f"the subject reports {num_steps} steps, where at most {case.num_steps} were asked for.")
    return Asked(method=method, betas=_betas(trial, seen), num_steps=num_steps, phantom=phantom)


def told(trial: Trial) -> Asked:
    """The solve of a case that leaves nothing but the number of steps to the subject."""
    case = trial.case
    return Asked(method=METHODS[case.solver], betas=_table(case), num_steps=(case.num_steps,) * len(trial.problem.z0))


def _betas(trial: Trial, seen: Observation) -> BetasTable:
    case, method = trial.case, METHODS[trial.case.solver]
    if method.relaxation in ("number", "schedule"):
        return _table(case)
    shape = () if method.relaxation == "auto" else (len(trial.problem.z0), case.num_steps)
    chosen = torch.as_tensor(torch.nan if seen.beta is None else seen.beta, dtype=torch.float64).cpu()
    if tuple(chosen.shape) != shape or not bool(torch.isfinite(chosen).all()):
        raise ValueError(f"the subject says that it chose {seen.beta!r}: give in Solved.beta numbers of shape {shape}.")
    if method.relaxation == "auto":
        return (((float(chosen),), (float(chosen),)),) * case.num_steps
    return tuple((tuple(column), tuple(column)) for column in chosen.T.tolist())


def _table(case: Case) -> BetasTable:
    given = METHODS[case.solver].beta(case.beta, case.num_steps)
    pairs = given if isinstance(given, tuple) else ((case.beta, case.beta),) * case.num_steps
    return tuple(((first,), (second,)) for first, second in pairs)


def defined_rows(
    trial: Trial, adjoint: Adjoint, leaves: list[str], phantom: tuple[int, float] | None = None
) -> list[Measurement]:
    """R of states and leaves of a gradient against what the method is defined to return.

    Args:
        trial: the case.
        adjoint: whose observation is compared.
        leaves: "z1", "y1", or leaves of a gradient.
        phantom: as in `Asked`.
    """
    seen = trial.observe(adjoint)
    solve = asked(trial, seen, phantom)
    expected = trial.references.method_run(trial.problem, solve)
    scale = trial.references.method_scale(trial.problem, solve, trial.case.unit_roundoff)
    states = {"z1": seen.z1, "y1": seen.y1}
    return [
        ratio_row(
            trial,
            leaf,
            states[leaf] if leaf in states else seen.gradients.get(leaf),
            expected.values[leaf],
            scale=scale[leaf],
            uncertainty=expected.uncertainty[leaf],
            adjoint=adjoint,
            target=trial.case.solver if leaf not in states else "",
            **cost(seen),
        )
        for leaf in leaves
    ]


def gradient_places(case: Case, adjoint: Adjoint, target: str) -> list[Place]:
    """A row per leaf that an adjoint differentiates; a phantom gradient knows nothing of z0."""
    return [
        Place(adjoint=adjoint, target=target, leaf=leaf, shape=shape)
        for leaf, shape in leaf_shapes(case).items()
        if adjoint != "phantom" or leaf != "z0"
    ]
