"""Claim: integer states are undone to the bit."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import bitwise
from verify.criteria import EXACT_WHY, Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.bits import bits_row, differing_states
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row for f's border, one for the start and one for the middle."""
    for leaf in ("where f is evaluated", *(f"y and z at step {n}" for n in (0, case.num_steps // 2))):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


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
        Maclaurin, Duvenaud, Adams, arXiv 1502.03492, section 2.2; (T8).
    """
    case, problem = trial.case, trial.problem
    seen = trial.observe("reversible")
    at_border = differing_states(seen.forward_states, seen.backward_states[::-1])
    rows = [bits_row(trial, "where f is evaluated", at_border)]
    inputs = problem.inputs(case.torch_dtype, case.device)
    rebuilt = trial.subject.reconstruct(problem.function, *inputs, trial.settings("reversible"))
    whole = len(rebuilt) == case.num_steps + 1
    # The integers of the start depend on f(z0), so that no run of 0 steps has them.
    for n, steps, place in ((0, 1, -1), (case.num_steps // 2, case.num_steps // 2, 0)):
        shorter = trial.subject.reconstruct(problem.function, *inputs, trial.settings("reversible", num_steps=steps))
        found = rebuilt[case.num_steps - n] if whole else ()
        rows.append(bits_row(trial, f"y and z at step {n}", differing_states(shorter[place], found)))
    return rows


CHECK = Check(
    name="bitwise-states",
    topic="bits",
    criterion=Criterion(
        claim="integer states and remainders undo every half step to the bit, at any depth and for f in any dtype",
        comparison="==",
        threshold=0.0,
        why=EXACT_WHY,
        unit="count",
        reading=DIFFERENCE,
        observed="args",
    ),
    kills=("naive-reversal-as-bitwise", "remainders-dropped"),
    applies=bitwise,
    places=places,
    rows=check_bitwise_states,
    reverses=True,
)
