"""Claim: on integer states reversal returns the very bits, for what a remainder of log2 m bits costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from verify.checks.counts import STEPS, kept_bytes
from verify.checks.refusal import refused_row
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.observation import bind, same_bits
from verify.trial.trial import Trial, cost


def check_bitwise_states(trial: Trial) -> list[Measurement]:
    """Compare the states of reversal with those of the forward pass, bit for bit.

    Seen at f's border, backward evaluates f at the states of forward, in the opposite order. Seen from inside, undoing
    N steps gives the states that N/2 steps end in, and the start that undoing one step gives.

    Returns:
        A row for f's border, one for the start and one for the middle; `measured` is the number of components that
        differ in any bit.

    How this can fail: remainders that are lost, mixed up or rounded; reversal in floating-point numbers that calls
    itself bitwise; f evaluated otherwise in backward. Rows at f's border see no more than f's dtype does.

    References:
        Maclaurin, Duvenaud, Adams, arXiv 1502.03492, section 2.2; (THEORY T8).
    """
    case, problem = trial.case, trial.problem
    seen = trial.observe("reversible")
    at_border = _differing(seen.forward_states, seen.backward_states[::-1])
    rows = [_row(trial, "bitwise-states", "where f is evaluated", at_border)]
    inputs = problem.inputs(case.torch_dtype, case.device)
    rebuilt = trial.subject.reconstruct(problem.function, *inputs, trial.settings("reversible"))
    whole = len(rebuilt) == case.num_steps + 1
    # The integers of the start depend on f(z0), so that no run of 0 steps has them.
    for n, steps, place in ((0, 1, -1), (case.num_steps // 2, case.num_steps // 2, 0)):
        shorter = trial.subject.reconstruct(problem.function, *inputs, trial.settings("reversible", num_steps=steps))
        found = rebuilt[case.num_steps - n] if whole else ()
        rows.append(_row(trial, "bitwise-states", f"y and z at step {n}", _differing(shorter[place], found)))
    return rows


def check_bitwise_cotangents(trial: Trial) -> list[Measurement]:
    """Compare every cotangent of the reversed pass with that of the unrolled iteration in the same arithmetic.

    Returns:
        A row for the cotangents that enter f's vector-Jacobian products and one for the gradient of z0; `measured` is
        the number of components that differ in any bit.

    How this can fail: a derivative of the rounding that is not the identity, a factor rounded, sums in another order.
    Gradients of parameters are sums over steps, which "gradient" judges: they are not rounded as autograd rounds them.

    References:
        (THEORY T8).
    """
    adjoints: tuple[Adjoint, ...] = ("reversible", "unrolled")
    reversible, unrolled = (trial.observe(adjoint) for adjoint in adjoints)
    pairs = [
        (
            "cotangents that enter f",
            _differing(unrolled.cotangents, reversible.cotangents),
        ),
        (
            "z0",
            _differing(
                *([] if g is None else [g] for g in (unrolled.gradients.get("z0"), reversible.gradients.get("z0")))
            ),
        ),
    ]
    return [_row(trial, "bitwise-cotangents", leaf, count) for leaf, count in pairs]


def check_tape_bytes(trial: Trial) -> list[Measurement]:
    """Measure what the remainders of 12 steps take, for beta = 1 - 1/m or 1 + 1/m, m a power of two.

        measured = (bytes(16) - bytes(4)) / (2 * 12 samples ceil(components log2 m / 8))

    Returns:
        One row: 1 where a component of a state takes log2 m bits in a half step, packed sample by sample.

    How this can fail: remainders kept as bytes or as numbers; states stored after all. f in float64 has no first steps
    whose remainders are known to be 0, which would count for nothing.

    References:
        (THEORY T1, T8): the determinant of a half step is 1/m per component, so log2 m bits are lost.
    """
    few, many = (kept_bytes(trial, trial.settings("reversible", num_steps=steps)) for steps in STEPS)
    bits = math.log2(round(1 / abs(1 - trial.case.beta)))
    samples, components = trial.problem.z0.shape[0], trial.problem.z0[0].size
    expected = 2 * (STEPS[1] - STEPS[0]) * samples * math.ceil(components * bits / 8)
    return [
        trial.row(
            "tape-bytes",
            "reversible",
            leaf="remainders",
            got=float(many - few),
            expected=float(expected),
            measured=(many - few) / expected,
            unit="relative",
            saved_bytes=many,
        )
    ]


def check_bitwise_refusals(trial: Trial) -> list[Measurement]:
    """Ask for what reversal to the bit cannot do.

    Asked are a beta between two of the form 1 - 1/m; a map that multiplies by 2^20 at every evaluation, whose states
    leave every range of integers; and a function whose evaluations differ in their last bits.

    Returns:
        A row each; `measured` is 1 where a gradient came out, or the error has no words, else 0.

    How this can fail: beta rounded to a neighbour; integers that wrap round; a reversal that does not look where it
    ended.

    References:
        (THEORY T8).
    """
    beta, function = trial.case.beta, trial.problem.function
    asked: dict[str, tuple[float, Callable[[Tensor, Any], Tensor]]] = {
        "beta=0.7": (0.7, function),
        "overflow": (beta, lambda z, args: 2.0**20 * z + 0.0 * function(z, args)),
        "f that does not repeat": (beta, _Unsteady(function)),
    }
    rows: list[Measurement] = []
    for leaf, (number, asked_function) in asked.items():
        attempt = partial(_gradient, trial, asked_function, number)
        errors = (ValueError, ArithmeticError, RuntimeError)
        rows.append(refused_row(trial, "bitwise-refusals", leaf, attempt, errors))
    return rows


class _Unsteady:
    """A function whose value grows by a few units in the last place from one evaluation to the next."""

    def __init__(self, function: Callable[[Tensor, Any], Tensor]) -> None:
        self._function = function
        self._evaluations = 0

    def __call__(self, z: Tensor, args: Any) -> Tensor:
        value = self._function(z, args)
        self._evaluations += 1
        return value * (1 + 4 * self._evaluations * torch.finfo(value.dtype).eps)


def _gradient(trial: Trial, function: Callable[[Tensor, Any], Tensor], beta: float) -> None:
    case = trial.case
    _, z0, args, _ = bind(trial.problem, "args", case.torch_dtype, case.device)
    solved = trial.subject.solve(function, z0, args, replace(trial.settings("reversible"), beta=beta))
    torch.autograd.backward([solved.z1, solved.y1], list(trial.problem.cotangents(case.torch_dtype, case.device)))


def _differing(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Number of components that differ in any bit; NaN where there is nothing to compare, or another number of it."""
    if not expected or len(expected) != len(got):
        return math.nan
    count = 0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return math.nan
        if not same_bits(one, other):
            count += int(torch.count_nonzero((one != other) & ~(one.isnan() & other.isnan())))
    return float(count)


def _row(trial: Trial, check: str, leaf: str, differing: float) -> Measurement:
    return trial.row(
        check,
        "reversible",
        leaf=leaf,
        got=differing,
        expected=0.0,
        measured=differing,
        unit="count",
        **cost(trial.observe("reversible")),
    )
