"""The part of a certificate that a stranger can check: a straight-line program and what was proved with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.contraction import Contraction
from verify.certificate.fixed_point import Absence, Enclosure
from verify.certificate.n_step import Steps
from verify.certificate.recording import Recording, compressed, exact_text, slot_numbers
from verify.certificate.state_map import box
from verify.reference.arithmetic import Array
from verify.reference.arithmetic.jets import Jets
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Graph, Program, Traced


class Tapes:
    """One recording of f and its pullbacks, written anew only where a branch could go another way.

    Args:
        traced: the function.
        bits: working precision at which branches are decided.
        direction: along which the kind "tangent" differentiates, for every leaf.
    """

    def __init__(self, traced: Traced, bits: int, direction: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        self._traced = traced
        self._direction = direction
        self._recording = Recording(bits)
        self._arrays = traced.arrays()
        shapes = [self._arrays[name].shape for name in traced.state]
        count = sum(int(np.prod(shape)) for shape in shapes)
        zero = self._recording.balls.convert(np.zeros(count))
        self._z, self._cotangent = self._recording.input(zero), self._recording.input(zero)
        self._tapes: dict[str, Any] = {}
        self._universal: dict[str, str] = {}

    def record(self, kind: str, z: Array, cotangent: Array) -> str:
        """The name of a tape that holds at the point z, with the cotangent at hand.

        Args:
            kind: "f", "pullback_of_state", "pullback", or "tangent": f and its derivative along the direction, the
                cotangent being that of the state.
            z: balls, flat.
            cotangent: balls, flat.
        """
        if kind in self._universal:
            return self._universal[kind]
        graph = {
            "f": self._traced.forward,
            "tangent": self._traced.forward,
            "pullback_of_state": self._traced.vjp.restricted(self._traced.state),
            "pullback": self._traced.vjp,
        }[kind]
        for slots, balls in ((self._z, z), (self._cotangent, cotangent)):
            for slot, ball in zip(slots.tolist(), balls.tolist(), strict=True):
                slot.ball = ball
        branches, first = self._recording.branches, len(self._recording.instructions)
        outputs = self._run_with_tangent(graph) if kind == "tangent" else self._run(graph)
        name = f"{kind} {len(self._tapes)}"
        self._tapes[name] = {
            "instructions": [first, len(self._recording.instructions)],
            "outputs": {leaf: compressed(slot_numbers(slots)) for leaf, slots in outputs.items()},
        }
        if self._recording.branches == branches:
            self._universal[kind] = name
        return name

    def _run(self, graph: Graph) -> dict[str, Array]:
        fixed = {name: values for name, values in self._arrays.items() if name not in self._traced.state}
        program = Program(graph, self._recording, fixed)
        given: dict[str, Array] = {}
        first = 0
        for name in self._traced.state:
            shape = self._arrays[name].shape
            count = int(np.prod(shape))
            given[name] = self._z[first : first + count].reshape(shape)
            given[name.replace("z0", "cotangent", 1)] = self._cotangent[first : first + count].reshape(shape)
            first += count
        results = program({name: given[name] for name in program.free})
        joined = {name: balls for name, balls in results.items() if name not in self._traced.state}
        state = [results[name].reshape(-1) for name in self._traced.state]
        return {"z0": np.concatenate(state), **joined}

    def _run_with_tangent(self, graph: Graph) -> dict[str, Array]:
        tape, direction = self._recording, self._direction or {}
        jets = Jets(tape)
        fixed = {name: values for name, values in self._arrays.items() if name not in self._traced.state}
        for name, way in direction.items():
            if name in fixed:
                fixed[name] = jets.jets(tape.convert(fixed[name]), tape.convert(way))
        state = jets.jets(self._z, self._cotangent)
        given: dict[str, Array] = {}
        first = 0
        for name in self._traced.state:
            shape = self._arrays[name].shape
            given[name] = state[first : first + int(np.prod(shape))].reshape(shape)
            first += int(np.prod(shape))
        results = Program(graph, jets, fixed)(given)
        values, tangents = jets.parts(np.concatenate([results[name].reshape(-1) for name in self._traced.state]))
        return {"z0": values, "tangent": tape.convert(np.zeros(values.shape)) if tangents is None else tangents}

    def program(self) -> dict[str, Any]:
        """The program in plain JSON values."""
        return {
            "slots": self._recording.size,
            "inputs": {
                "z": compressed(slot_numbers(self._z)),
                "cotangent": compressed(slot_numbers(self._cotangent)),
            },
            "instructions": self._recording.instructions,
            "tapes": self._tapes,
        }


def texts(balls: Array, digits: int) -> list[str]:
    """Balls as decimal strings that contain them, at so many digits, with twice their radius.

    The room is for a re-checker whose sums run in another order, so that its radii differ in the last places.
    """
    with flint_precision(int(3.33 * digits) + 64):
        return [arb(ball.mid(), 2 * ball.rad()).str(digits) for ball in balls.ravel().tolist()]


def gradient_texts(gradient: Mapping[str, Array], state: tuple[str, ...], digits: int) -> dict[str, list[str]]:
    """Every leaf's balls as decimal strings; the state's leaves joined under "z0"."""
    leaves = {name: texts(balls, digits) for name, balls in gradient.items() if name not in state}
    start = [text for name in state if name in gradient for text in texts(gradient[name], digits)]
    return {"z0": start, **leaves} if start else leaves


def _hex(values: NDArray[np.float64]) -> list[str]:
    return [float(value).hex() for value in values.ravel().tolist()]


def absence_proof(traced: Traced, absence: Absence, start: NDArray[np.float64], bits: int) -> dict[str, Any]:
    """What a stranger needs to prove again that there is no fixed point near the start."""
    tapes = Tapes(traced, bits)
    point, weights = exact_balls(start), exact_balls(np.zeros(start.size))
    region = box(point, arb(absence.reach))
    return {
        "bits": bits,
        "no_fixed_point": {
            "tapes": {
                "f": tapes.record("f", region, weights),
                "pullback_of_state": tapes.record("pullback_of_state", region, weights),
            },
            "start": _hex(start),
            "reach": absence.reach.hex(),
            "component": absence.component,
        },
        "program": tapes.program(),
    }


def fixed_point_proof(
    traced: Traced,
    enclosure: Enclosure,
    near: Contraction | None,
    cotangent: NDArray[np.float64],
    implicit: Mapping[str, Array] | None,
    digits: int,
) -> dict[str, Any]:
    """What a stranger needs to prove the fixed point, the contraction constant and the implicit gradient again."""
    tapes = Tapes(traced, enclosure.bits)
    weights = exact_balls(cotangent)
    region = box(enclosure.center, enclosure.radius)
    names = {kind: tapes.record(kind, region, weights) for kind in ("f", "pullback_of_state")}
    proof: dict[str, Any] = {
        "bits": enclosure.bits,
        "fixed_point": {
            "tapes": names,
            "center": [exact_text(ball) for ball in enclosure.center.tolist()],
            "radius": exact_text(enclosure.radius),
            "samples": enclosure.samples,
            "inverses": [_hex(block) for block in enclosure.inverses],
            "solution": texts(enclosure.solution, digits),
        },
    }
    if near is not None and near.constant < 1:
        radius = arb(near.radius) if near.radius else enclosure.radius
        proof["contraction"] = {
            "tape": tapes.record("pullback_of_state", box(enclosure.center, radius), weights),
            "radius": exact_text(radius),
            "constant": claimed_constant(near).str(12),
            "vectors": [{"left": _hex(bound.left), "right": _hex(bound.right)} for bound in near.bounds],
        }
    if near is not None and near.at_fixed_point[0] >= 1:
        worst = max(range(len(near.bounds)), key=lambda sample: float(near.bounds[sample].lower))
        proof["expansion"] = {
            "sample": worst,
            "vector": _hex(near.bounds[worst].right[:, 0]),
            "lower": ((1 - arb(2) ** -20) * near.at_fixed_point[0]).lower().str(12),
        }
    if implicit is not None:
        proof["implicit"] = {
            "tape": tapes.record("pullback", enclosure.solution, weights),
            "cotangent": _hex(cotangent),
            "gradient": gradient_texts(implicit, traced.state, digits),
        }
    return {**proof, "program": tapes.program()}


def claimed_constant(near: Contraction) -> arb:
    """The bound with room for a re-checker whose radii, 30 bits long, are rounded in another order."""
    return (near.constant * (1 + arb(2) ** -20)).upper()


def exact_balls(values: NDArray[np.float64]) -> Array:
    """Exact balls of float64 values."""
    return Recording(64).balls.convert(values)


def n_step_proof(
    traced: Traced,
    bits: int,
    beta: float,
    start: NDArray[np.float64],
    cotangents: tuple[NDArray[np.float64], NDArray[np.float64]],
    steps: Steps,
    digits: int,
) -> dict[str, Any]:
    """What a stranger needs to prove z_N and the N-step gradient again."""
    tapes = Tapes(traced, bits)
    weights = exact_balls(cotangents[0])
    names = [{kind: tapes.record(kind, point, weights) for kind in ("f", "pullback")} for point in steps.visited]
    return {
        "bits": bits,
        "n_step": {
            "beta": float(beta).hex(),
            "num_steps": len(steps.visited) // 2,
            "start": _hex(start),
            "cotangent_z": _hex(cotangents[0]),
            "cotangent_y": _hex(cotangents[1]),
            "tapes": names,
            "z": texts(steps.z, digits),
            "y": texts(steps.y, digits),
            "gradient": gradient_texts(steps.gradient, traced.state, digits),
        },
        "program": tapes.program(),
    }


def direction_proof(
    traced: Traced,
    bits: int,
    beta: float,
    cotangents: tuple[NDArray[np.float64], NDArray[np.float64]],
    direction: Mapping[str, NDArray[np.float64]],
    visited: tuple[tuple[Array, Array], ...],
    derivative: arb,
    digits: int,
) -> dict[str, Any]:
    """What a stranger needs to prove the derivative of the N-step loss along one direction again."""
    tapes, arrays = Tapes(traced, bits, direction), traced.arrays()
    (shown,) = texts(np.array([derivative], dtype=object), digits)
    return {
        "bits": bits,
        "direction": {
            "beta": float(beta).hex(),
            "num_steps": len(visited) // 2,
            "start": [text for name in traced.state for text in _hex(arrays[name])],
            "way": [text for name in traced.state for text in _hex(direction[name])],
            "cotangent_z": _hex(cotangents[0]),
            "cotangent_y": _hex(cotangents[1]),
            "tapes": [tapes.record("tangent", *point) for point in visited],
            "derivative": shown,
        },
        "program": tapes.program(),
    }
