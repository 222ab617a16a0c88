"""Reversible deep equilibrium models: solvers and adjoints for fixed points in PyTorch."""

from importlib.metadata import version

from revdeq import nn as nn, rates as rates
from revdeq._automatic import AutomaticBeta as AutomaticBeta, automatic_beta as automatic_beta
from revdeq._averaging import Averaged as Averaged
from revdeq._errors import GradientError as GradientError
from revdeq._estimate import (
    EstimateError as EstimateError,
    LipschitzEstimate as LipschitzEstimate,
    SpectrumEstimate as SpectrumEstimate,
    extreme_eigenvalues as extreme_eigenvalues,
    lipschitz_constant as lipschitz_constant,
)
from revdeq._plan import Plan as Plan, PlanError as PlanError, plan as plan
from revdeq._schedule import (
    Schedule as Schedule,
    ScheduleErrors as ScheduleErrors,
    adapted_beta as adapted_beta,
    chebyshev_schedule as chebyshev_schedule,
    constant_schedule as constant_schedule,
    schedule_errors as schedule_errors,
)
from revdeq._solution import (
    Health as Health,
    Result as Result,
    Solution as Solution,
    SolveError as SolveError,
)
from revdeq._solve import solve as solve
from revdeq.adjoint import (
    Adjoint as Adjoint,
    CheckpointedAdjoint as CheckpointedAdjoint,
    ImplicitAdjoint as ImplicitAdjoint,
    PhantomAdjoint as PhantomAdjoint,
    ReversibleAdjoint as ReversibleAdjoint,
    UnrolledAdjoint as UnrolledAdjoint,
)
from revdeq.arithmetic import Bitwise as Bitwise, Floating as Floating
from revdeq.nn import jacobian_penalty as jacobian_penalty
from revdeq.solver import (
    GMRES as GMRES,
    Anderson as Anderson,
    Broyden as Broyden,
    ForwardBackward as ForwardBackward,
    PeacemanRachford as PeacemanRachford,
    Relaxed as Relaxed,
    Reversible as Reversible,
    Solver as Solver,
)


__version__ = version("revdeq")


__all__ = [
    "GMRES",
    "Adjoint",
    "Anderson",
    "AutomaticBeta",
    "Averaged",
    "Bitwise",
    "Broyden",
    "CheckpointedAdjoint",
    "EstimateError",
    "Floating",
    "ForwardBackward",
    "GradientError",
    "Health",
    "ImplicitAdjoint",
    "LipschitzEstimate",
    "PeacemanRachford",
    "PhantomAdjoint",
    "Plan",
    "PlanError",
    "Relaxed",
    "Result",
    "Reversible",
    "ReversibleAdjoint",
    "Schedule",
    "ScheduleErrors",
    "Solution",
    "SolveError",
    "Solver",
    "SpectrumEstimate",
    "UnrolledAdjoint",
    "adapted_beta",
    "automatic_beta",
    "chebyshev_schedule",
    "constant_schedule",
    "extreme_eigenvalues",
    "jacobian_penalty",
    "lipschitz_constant",
    "plan",
    "schedule_errors",
    "solve",
]
