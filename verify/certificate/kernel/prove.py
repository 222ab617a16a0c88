"""Carries out the proofs of a certificate, without looking at its claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flint import arb, arb_mat

from verify.certificate.kernel.code import Code, Run
from verify.certificate.kernel.fixed_points import absence, adjoint, ball_radius, fixed_point, implicit, jacobian_by
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.numbers import Failed, OtherBranch, exact, number
from verify.certificate.kernel.problem import KINDS, Problem, Proved
from verify.certificate.kernel.steps import Steps, direction, n_steps, steps_gradient, torch_steps_gradient


def moved(machine: Machine, name: str, radius: arb) -> Machine:
    """The same program with one leaf anywhere within a radius of its values."""
    values = {**machine.values, name: [arb(x, radius) for x in machine.values[name]]}
    return Machine(machine.code, values)


def on_a_kink(leaves: Iterable[str], run_near: Callable[[str], None]) -> set[str]:
    """The leaves whose least move changes a comparison that two equal numbers decide.

    Args:
        leaves: which.
        run_near: runs everything with one leaf anywhere within a small radius.
    """
    found: set[str] = set()
    for name in leaves:
        try:
            run_near(name)
        except OtherBranch:
            found.add(name)
    return found


def prove_implicit(
    machine: Machine, problem: Problem, proved: Proved, tape: str, region: list[arb]
) -> tuple[list[arb], list[arb]]:
    """The implicit gradient over the enclosure of the fixed point.

    Args:
        machine: the program.
        problem: its numbers.
        proved: holds the enclosure and K; takes up the gradient.
        tape: of f.
        region: the box in which the fixed point is the only one.

    Returns:
        w = (I - K^T)^-1 c, and K^T w.

    Raises:
        Failed: the balls do not exclude a singular system.
    """
    machine.count_anew()
    w = adjoint(proved.blocks, problem.cotangent)
    gradient, back = implicit(machine, machine.run(tape, proved.state), w)
    proved.gradient = problem.own(gradient)
    kinked: set[str] = set()
    if machine.ties:
        kinked = on_a_kink(problem.leaves, lambda name: _see_run(moved(machine, name, problem.near), tape, region))
    proved.judge(problem, machine, kinked)
    return w, back


def _see_run(machine: Machine, tape: str, z: list[arb]) -> None:
    machine.run(tape, z)


def compare_implicit(
    machine: Machine, problem: Problem, proved: Proved, w: list[arb], back: list[arb], at: Run
) -> None:
    """Torch's backward, run over the enclosure of the fixed point, beside the gradient of f.

    Both solve the same adjoint system if they give the same K^T w for the w that solves that of f.
    """
    if not proved.compare(machine.pulled(at, w), {"z0": back}, problem.digits):
        return

    blocks = jacobian_by(lambda c: machine.pulled(at, c)["z0"], len(w), len(proved.blocks))
    proved.torch = problem.own(machine.pulled(at, adjoint(blocks, problem.cotangent)))


def prove_steps(machine: Machine, problem: Problem, proved: Proved, evaluate: Callable[[int, list[arb]], Run]) -> Steps:
    """z_N and the N-step gradient.

    Args:
        machine: the program.
        problem: its numbers.
        proved: takes up what is proved.
        evaluate: f at the k-th state.
    """
    machine.count_anew()
    beta, count = problem.beta, problem.num_steps
    steps = n_steps(evaluate, beta, count, problem.start)
    proved.state, proved.y = steps.z, steps.y
    start, leaves = steps_gradient(machine, steps, beta, problem.c_z, problem.c_y)
    proved.gradient = {"z0": start, **problem.own(leaves)}
    kinked: set[str] = set()
    if machine.ties:

        def near(name: str) -> None:
            other = machine if name == "z0" else moved(machine, name, problem.near)
            begin = [arb(x, problem.near) for x in problem.start] if name == "z0" else problem.start
            n_steps(lambda k, at: other.run(steps.runs[k].tape, at), beta, count, begin)

        kinked = on_a_kink(proved.gradient, near)
    proved.judge(problem, machine, kinked)
    return steps


def compare_steps(machine: Machine, problem: Problem, proved: Proved, runs: list[Run]) -> None:
    """Torch's backward, run at the same states, beside the gradient of f."""
    start, leaves = torch_steps_gradient(machine, runs, problem.beta, problem.c_z, problem.c_y)
    zeros = {name: [arb(0)] * len(problem.values[name]) for name in problem.leaves}
    theirs = {"z0": start, **problem.own({**zeros, **leaves})}
    if proved.compare(theirs, {}, problem.digits):
        proved.torch = theirs


def prove(problem: Problem, code: Code, proof: dict[str, Any]) -> Proved:
    """Carry out one proof of a certificate, without looking at its claims.

    Raises:
        Failed: it does not hold.
    """
    machine = Machine(code, problem.values)
    proved = Proved(next((kind for kind in KINDS if kind in proof), ""), proof["bits"])
    if proved.kind == "fixed_point":
        given = proof["fixed_point"]
        center = [number(text) for text in given["center"]]
        size = len(problem.start)
        if len(center) != size or size % max(1, len(given["inverses"])):
            raise Failed("the center has not the size of the state")
        width = size // len(given["inverses"])
        inverses = [arb_mat(width, width, exact(text)) for text in given["inverses"]]
        radius = ball_radius(number(given["radius"]))
        proved.state, proved.blocks, _ = fixed_point(machine, given["tape"], center, radius, inverses)
        if "implicit" in proof:
            tape = proof["implicit"]["torch"]
            w, back = prove_implicit(machine, problem, proved, given["tape"], [arb(x, radius) for x in center])
            if tape is not None:
                compare_implicit(machine, problem, proved, w, back, machine.run(tape, proved.state))
    elif proved.kind == "n_step":
        given = proof["n_step"]
        if len(given["tapes"]) != 2 * problem.num_steps:
            raise Failed(f"{len(given['tapes'])} evaluations are recorded for {problem.num_steps} steps")
        steps = prove_steps(machine, problem, proved, lambda k, at: machine.run(given["tapes"][k], at))
        if given["torch"] is not None:
            runs = [machine.run(tape, at) for tape, at in zip(given["torch"], steps.points, strict=True)]
            compare_steps(machine, problem, proved, runs)
    elif proved.kind == "no_fixed_point":
        given = proof["no_fixed_point"]
        reach = arb(float.fromhex(given["reach"]))
        absence(machine, given["tape"], problem.start, reach, given["component"])
    elif proved.kind == "direction":
        given = proof["direction"]
        way = split_way(problem, exact(given["way"]))
        proved.derivative, _ = direction(machine, problem, way, lambda k, at: machine.run(given["tapes"][k], at))
        if machine.ties or machine.hulls:
            raise Failed("f is evaluated on a kink, so it has no derivative there")
    else:
        raise Failed("a proof proves nothing that is known here")
    return proved


def split_way(problem: Problem, flat: list[arb]) -> dict[str, list[arb]]:
    """A direction by leaf, the start's joined as "z0"."""
    parts: dict[str, list[arb]] = {}
    first = 0
    for name, size in {
        "z0": len(problem.start),
        **{leaf: len(problem.values[leaf]) for leaf in problem.leaves},
    }.items():
        parts[name] = flat[first : first + size]
        first += size
    if first != len(flat):
        raise Failed("the direction has not the size of the leaves")
    return parts
