"""Equilibrium problems with known answers, each stated once and evaluated by torch and by the reference."""

from verify.problems.operations import Operations as Operations
from verify.problems.problem import Problem as Problem, ProblemModule as ProblemModule, to_bfloat16 as to_bfloat16
from verify.problems.registry import (
    PROBLEMS as PROBLEMS,
    get_problem as get_problem,
    problem_names as problem_names,
)
from verify.problems.torch_operations import TorchOperations as TorchOperations


__all__ = [
    "PROBLEMS",
    "Operations",
    "Problem",
    "ProblemModule",
    "TorchOperations",
    "get_problem",
    "problem_names",
    "to_bfloat16",
]
