"""Reversible deep equilibrium models: solvers and adjoints for fixed points in PyTorch."""

from revdeq import nn as nn, rates as rates
from revdeq.adjoint import (
    Adjoint as Adjoint,
    CheckpointedAdjoint as CheckpointedAdjoint,
    ImplicitAdjoint as ImplicitAdjoint,
    PhantomAdjoint as PhantomAdjoint,
    ReversibleAdjoint as ReversibleAdjoint,
    UnrolledAdjoint as UnrolledAdjoint,
)
from revdeq.arithmetic import Bitwise as Bitwise, Floating as Floating
from revdeq.automatic import AutomaticBeta as AutomaticBeta, automatic_beta as automatic_beta
from revdeq.averaging import Averaged as Averaged
from revdeq.errors import GradientError as GradientError
from revdeq.estimate import (
    EstimateError as EstimateError,
    LipschitzEstimate as LipschitzEstimate,
    SpectrumEstimate as SpectrumEstimate,
    extreme_eigenvalues as extreme_eigenvalues,
    lipschitz_constant as lipschitz_constant,
)
from revdeq.nn import jacobian_penalty as jacobian_penalty
from revdeq.plan import Plan as Plan, PlanError as PlanError, plan as plan
from revdeq.schedule import (
    Schedule as Schedule,
    chebyshev_schedule as chebyshev_schedule,
    constant_schedule as constant_schedule,
)
from revdeq.solution import (
    Health as Health,
    Result as Result,
    Solution as Solution,
    SolveError as SolveError,
)
from revdeq.solve import solve as solve
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
