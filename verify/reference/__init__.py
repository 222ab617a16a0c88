"""References: the same computation in another arithmetic, without torch, each with its own uncertainty."""

from verify.reference.agreement import Agreement as Agreement, agreement as agreement
from verify.reference.compare import difference as difference, greatest_difference as greatest_difference
from verify.reference.finite_differences import (
    FiniteDifference as FiniteDifference,
    default_direction as default_direction,
    default_leaf_direction as default_leaf_direction,
    finite_differences as finite_differences,
    loss_along as loss_along,
)
from verify.reference.fixed_point import (
    FixedPoint as FixedPoint,
    ReferenceFailure as ReferenceFailure,
    fixed_point as fixed_point,
    jacobian as jacobian,
)
from verify.reference.float64_differences import float64_finite_differences as float64_finite_differences
from verify.reference.linearise import Linearised as Linearised, convert_args as convert_args
from verify.reference.n_step import NStep as NStep, Trajectory as Trajectory, n_step as n_step
from verify.reference.tape import Tape as Tape, Variable as Variable
from verify.reference.taylor import (
    FittedOrder as FittedOrder,
    TaylorTable as TaylorTable,
    TooFewPoints as TooFewPoints,
    fitted_order as fitted_order,
    taylor_remainders as taylor_remainders,
)


__all__ = [
    "Agreement",
    "FiniteDifference",
    "FittedOrder",
    "FixedPoint",
    "Linearised",
    "NStep",
    "ReferenceFailure",
    "Tape",
    "TaylorTable",
    "TooFewPoints",
    "Trajectory",
    "Variable",
    "agreement",
    "convert_args",
    "default_direction",
    "default_leaf_direction",
    "difference",
    "finite_differences",
    "fitted_order",
    "fixed_point",
    "float64_finite_differences",
    "greatest_difference",
    "jacobian",
    "loss_along",
    "n_step",
    "taylor_remainders",
]
