"""The N reversible steps, their adjoint, and their derivative along one direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flint import arb

from verify.certificate.kernel.code import Gradient, Run
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.problem import Problem


class Steps:
    """What N steps return, and where they evaluated f."""

    def __init__(self, z: list[arb], y: list[arb], runs: list[Run], points: list[list[arb]]) -> None:
        self.z, self.y, self.runs, self.points = z, y, runs, points


def n_steps(evaluate: Callable[[int, list[arb]], Run], beta: arb, count: int, start: list[arb]) -> Steps:
    """The reversible recursion y' = a y + beta f(z), z' = a z + beta f(y'), a = 1 - beta.

    Args:
        evaluate: f at the k-th state.
        beta: relaxation parameter.
        count: N.
        start: z0.
    """
    a = 1 - beta
    y = z = start
    runs: list[Run] = []
    points: list[list[arb]] = []

    def half(old: list[arb], at: list[arb]) -> list[arb]:
        points.append(at)
        runs.append(evaluate(len(runs), at))
        return [a * x + beta * value for x, value in zip(old, runs[-1].output(), strict=True)]

    for _ in range(count):
        y = half(y, z)
        z = half(z, y)
    return Steps(z, y, runs, points)


def back_through(
    pull: Callable[[int, list[arb]], list[arb]], beta: arb, count: int, c_z: list[arb], c_y: list[arb]
) -> list[arb]:
    """The adjoint of the recursion: the gradient by its start.

        q = p_y + beta K(y')^T p_z,  p_y <- a q,  p_z <- a p_z + beta K(z)^T q

    Args:
        pull: c -> K^T c at the k-th state.
        beta: relaxation parameter.
        count: N.
        c_z: dL/dz_N.
        c_y: dL/dy_N.
    """
    a = 1 - beta
    p_z, p_y = c_z, c_y
    for step in reversed(range(count)):
        pulled = pull(2 * step + 1, [beta * x for x in p_z])
        q = [x + part for x, part in zip(p_y, pulled, strict=True)]
        pulled = pull(2 * step, [beta * x for x in q])
        p_z = [a * x + part for x, part in zip(p_z, pulled, strict=True)]
        p_y = [a * x for x in q]
    return [x + other for x, other in zip(p_y, p_z, strict=True)]


def steps_gradient(
    machine: Machine, steps: Steps, beta: arb, c_z: list[arb], c_y: list[arb]
) -> tuple[list[arb], dict[str, list[arb]]]:
    """The gradient of <c_z, z_N> + <c_y, y_N> by the start and by every leaf."""
    gradient = Gradient(len(machine.base))
    count = len(steps.runs) // 2
    start = back_through(lambda k, c: machine.reverse(steps.runs[k], c, gradient), beta, count, c_z, c_y)
    return start, machine.leaves(gradient)


def torch_steps_gradient(
    machine: Machine, runs: list[Run], beta: arb, c_z: list[arb], c_y: list[arb]
) -> tuple[list[arb], dict[str, list[arb]]]:
    """`steps_gradient` by the recorded backward of torch, run at the same states."""
    total: dict[str, list[arb]] = {}

    def pull(k: int, c: list[arb]) -> list[arb]:
        parts = machine.pulled(runs[k], c)
        for name, part in parts.items():
            if name != "z0":
                total[name] = [x + y for x, y in zip(total[name], part, strict=True)] if name in total else part
        return parts["z0"]

    start = back_through(pull, beta, len(runs) // 2, c_z, c_y)
    return start, total


def direction(
    machine: Machine, problem: Problem, way: dict[str, list[arb]], evaluate: Callable[[int, list[arb]], Run]
) -> tuple[arb, arb]:
    """d/dt of <c_z, z_N> + <c_y, y_N> at theta + t v, the recursion differentiated forward.

    Args:
        machine: the program.
        problem: its numbers.
        way: v, for every leaf; the start's is "z0".
        evaluate: f at the k-th state.

    Returns:
        The derivative, and an upper bound of the sum of the absolute values of its terms.
    """
    machine.count_anew()
    beta = problem.beta
    y = z = problem.start
    y_along = z_along = way["z0"]
    leaves: list[Any] | None = None
    count = 0

    def half(old: list[arb], along: list[arb], at: list[arb], at_along: list[arb]) -> tuple[list[arb], list[arb]]:
        nonlocal count, leaves
        run = evaluate(count, at)
        count += 1
        if leaves is None or len(leaves) != len(machine.base):
            leaves = machine.leaves_along({name: values for name, values in way.items() if name != "z0"})
        image, slope = run.output(), machine.forward(run, at_along, leaves)
        return (
            [(1 - beta) * x + beta * value for x, value in zip(old, image, strict=True)],
            [(1 - beta) * x + beta * value for x, value in zip(along, slope, strict=True)],
        )

    for _ in range(problem.num_steps):
        y, y_along = half(y, y_along, z, z_along)
        z, z_along = half(z, z_along, y, y_along)
    pairs = ((z_along, problem.c_z), (y_along, problem.c_y))
    terms = [x * w for along, weights in pairs for x, w in zip(along, weights, strict=True)]
    return sum(terms, arb(0)), sum((abs(term) for term in terms), arb(0)).abs_upper()
