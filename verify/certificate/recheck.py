"""Check a certificate again. Needs python-flint and nothing of this project: python recheck.py certificate.json

The certificate holds the function and its pullback as a straight-line program of exact constants, sums, products and
elementary functions, and says what was proved. This program runs the recorded operations in ball arithmetic of its own
and proves every claim again:

    fixed point   N(Z) = c - C (c - f(c)) + (I - C (I - K(Z))) (Z - c) lies inside Z, and inside what is claimed
    contraction   ||K(Z)||_2 <= ||U^T K V|| / sqrt((1 - ||U^T U - I||) (1 - ||V^T V - I||)) is at most what is claimed
    implicit      (I - K^T) w = c solved in balls, pulled back, lies inside what is claimed
    N steps       the recursion and its adjoint, run in balls, lie inside what is claimed
    direction     the recursion with the derivative along one direction carried forward lies inside what is claimed
    no solution   a component of f(z0) - z0 + (K(Z) - I) (Z - z0) excludes 0 over the box Z round z0

It prints a line for each claim and exits with 0 if all hold, 1 if one fails, 2 if the file cannot be read.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flint
from flint import arb, arb_mat


class Failed(Exception):
    """A claim of the certificate does not hold, or its program does not run."""


def number(text: str) -> arb:
    """An exact number from 'mantissa:exponent' in hexadecimal, or inf, -inf, nan."""
    if ":" not in text:
        return arb(text)
    mantissa, exponent = text.split(":")
    return arb((int(mantissa, 16), int(exponent)))


def expanded(runs: list[int]) -> list[int]:
    """Slot numbers from runs of (first, count, step)."""
    places: list[int] = []
    for index in range(0, len(runs), 3):
        first, count, step = runs[index : index + 3]
        places += [first + step * place for place in range(count)]
    return places


def power(x: arb, exponent: float) -> arb:
    """X ** exponent: integers by products, halves by roots, others by exp(exponent log x)."""
    if not (2 * exponent).is_integer():
        return (x.log() * arb(exponent)).exp()
    base, left = (x, abs(int(exponent))) if exponent.is_integer() else (x.sqrt(), abs(int(2 * exponent)))
    result = arb(1)
    while left:
        if left & 1:
            result = result * base
        base, left = base * base, left >> 1
    return 1 / result if exponent < 0 else result


def decided(name: str, x: arb, y: arb) -> bool:
    """X < y or x <= y, if the balls decide it."""
    if x < y if name == "less" else x <= y:
        return True
    if x >= y if name == "less" else x > y:
        return False
    raise Failed(f"whether {x} is below {y} is undecided, so the recorded branch is not proved")


UNARY: dict[str, Callable[[arb], arb]] = {
    "negative": operator.neg,
    "absolute": abs,
    "exp": arb.exp,
    "expm1": arb.expm1,
    "log": arb.log,
    "log1p": arb.log1p,
    "sqrt": arb.sqrt,
    "sin": arb.sin,
    "cos": arb.cos,
    "tanh": arb.tanh,
    "erf": arb.erf,
}
BINARY: dict[str, Callable[[arb, arb], arb]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "maximum": arb.max,
    "minimum": arb.min,
}


def run_instruction(instruction: dict[str, Any], slots: list[Any], matrices: dict[int, Any]) -> None:
    """Carry out one instruction: append its results, or check its assertion."""
    name = instruction["op"]
    operands = instruction["places"]
    if name in ("less", "less_equal"):
        for x, y, outcome in zip(*operands, instruction["outcome"], strict=True):
            if x != y and decided(name, slots[x], slots[y]) is not (outcome == "1"):
                raise Failed(f"a recorded branch goes the other way at {slots[x]}, {slots[y]}")
        return
    first = instruction["first"]
    if name == "constant":
        results = [number(text) for text in instruction["values"]]
    elif name == "pi":
        results = [arb.pi()]
    elif name in UNARY:
        results = [UNARY[name](slots[x]) for x in operands[0]]
    elif name in BINARY:
        results = [BINARY[name](slots[x], slots[y]) for x, y in zip(*operands, strict=True)]
    elif name == "power":
        exponent = float.fromhex(instruction["exponent"])
        results = [power(slots[x], exponent) for x in operands[0]]
    elif name == "sum":
        rows = instruction["rows"]
        width = len(operands[0]) // rows if rows else 0
        results = [sum((slots[x] for x in operands[0][row * width : (row + 1) * width]), arb(0)) for row in range(rows)]
    elif name == "matmul":
        m, k, n = instruction["shape"]
        factors: list[Any] = []
        for side, (rows, columns) in enumerate(((m, k), (k, n))):
            if instruction["fixed"][side]:
                # A factor made of constants is the same matrix at every run.
                key = 2 * id(instruction) + side
                if key not in matrices:
                    matrices[key] = arb_mat(rows, columns, [slots[x] for x in operands[side]])
                factors.append(matrices[key])
            else:
                factors.append(arb_mat(rows, columns, [slots[x] for x in operands[side]]))
        results = (factors[0] * factors[1]).entries()
    else:
        raise Failed(f"the program has an unknown operation {name!r}")
    if len(results) != instruction["n"]:
        raise Failed(f"{name} gives {len(results)} numbers where {instruction['n']} are recorded")
    slots[first : first + len(results)] = results


class Machine:
    """The recorded programs; constants and what follows from them alone are computed once."""

    def __init__(self, program: dict[str, Any]) -> None:
        self.slots: list[Any] = [None] * program["slots"]
        self.inputs = {name: expanded(runs) for name, runs in program["inputs"].items()}
        varying = {place for places in self.inputs.values() for place in places}
        with_c = set(self.inputs["cotangent"])
        self.instructions: list[dict[str, Any]] = []
        self.matrices: dict[int, Any] = {}
        next_slot = sum(len(places) for places in self.inputs.values())
        if varying != set(range(next_slot)):
            raise Failed("the inputs are not the first slots")
        for instruction in program["instructions"]:
            places = [expanded(runs) for runs in instruction["in"]]
            if any(not 0 <= place < next_slot for operand in places for place in operand):
                raise Failed("an instruction reads a slot that nothing has written")
            fixed = [not any(place in varying for place in operand) for operand in places]
            entry = {**instruction, "places": places, "first": next_slot, "fixed": fixed, "once": all(fixed)}
            entry["with_c"] = any(place in with_c for operand in places for place in operand)
            written = range(next_slot, next_slot + instruction["n"])
            if not entry["once"]:
                varying.update(written)
            if entry["with_c"]:
                with_c.update(written)
            next_slot += instruction["n"]
            self.instructions.append(entry)
        for entry in self.instructions:
            if entry["once"]:
                run_instruction(entry, self.slots, self.matrices)
        self.tapes = program["tapes"]
        self._last: dict[str, list[arb]] = {}
        self._steps = {name: self._needed(tape) for name, tape in self.tapes.items()}

    def _needed(self, tape: dict[str, Any]) -> list[dict[str, Any]]:
        first, end = tape["instructions"]
        return [entry for entry in self.instructions[first:end] if not entry["once"]]

    def __call__(self, tape: str, **inputs: list[arb]) -> dict[str, list[arb]]:
        """Run a tape: give its inputs, get its outputs."""
        for name, values in inputs.items():
            if len(values) != len(self.inputs[name]):
                raise Failed(f"the input {name} has {len(values)} numbers, not {len(self.inputs[name])}")
            for place, value in zip(self.inputs[name], values, strict=True):
                self.slots[place] = value
        # What depends on z alone stays as it is while the same list of numbers is given again.
        again = self._last.get(tape) is inputs["z"]
        for entry in self._steps[tape]:
            if entry["with_c"] or not again:
                run_instruction(entry, self.slots, self.matrices)
        self._last[tape] = inputs["z"]
        outputs = self.tapes[tape]["outputs"]
        return {name: [self.slots[place] for place in expanded(runs)] for name, runs in outputs.items()}


def identity(size: int) -> arb_mat:
    """The identity matrix."""
    return arb_mat(size, size, [int(row == column) for row in range(size) for column in range(size)])


def inf_norm(matrix: Any) -> arb:
    """An upper bound of the greatest row sum of absolute values."""
    result = arb(0)
    for row in matrix.tolist():
        result = result.max(sum((abs(entry) for entry in row), arb(0)).abs_upper())
    return result


def jacobian(machine: Machine, tape: str, z: list[arb], samples: int) -> list[arb_mat]:
    """K over the box, one block for each sample, after checking that samples do not see each other."""
    size, width = len(z), len(z) // samples
    if samples > 1:
        for sample in range(samples):
            inside = range(sample * width, (sample + 1) * width)
            cube = [arb(0, 1) if place in inside else arb(0) for place in range(size)]
            image = machine(tape, z=z, cotangent=cube)["z0"]
            if any(not ball.is_zero() for place, ball in enumerate(image) if place not in inside):
                raise Failed("the samples are not independent")
    blocks: list[list[arb]] = [[] for _ in range(samples)]
    for row in range(width):
        seeds = [arb(int(place % width == row)) for place in range(size)]
        image = machine(tape, z=z, cotangent=seeds)["z0"]
        for sample in range(samples):
            blocks[sample] += image[sample * width : (sample + 1) * width]
    return [arb_mat(width, width, block) for block in blocks]


def contained(claimed: list[str], proved: list[arb], what: str) -> None:
    """See that what is proved lies inside what is claimed."""
    for place, (text, ball) in enumerate(zip(claimed, proved, strict=True)):
        if not arb(text).contains(ball):
            raise Failed(f"{what}[{place}]: {ball} is not inside the claimed {text}")


def check_gradient(claimed: dict[str, list[str]], proved: dict[str, list[arb]], what: str) -> None:
    """See that every leaf is claimed, and proved."""
    for name, texts in claimed.items():
        contained(texts, proved[name], f"{what} of {name}")


def floats(texts: list[str]) -> list[arb]:
    """Exact numbers from hexadecimal floats."""
    return [arb(float.fromhex(text)) for text in texts]


def check_derivative(
    machine: Machine, tape: str, center: list[arb], radius: arb, image: list[arb], derivative: list[arb_mat]
) -> None:
    """f(c + s) - f(c) lies in K(Z) s for a step s inside the box: the recorded pullback is that of the recorded f."""
    step = [radius * (1 - 2 * (place % 2)) for place in range(len(center))]
    moved = machine(tape, z=[point + part for point, part in zip(center, step, strict=True)])["z0"]
    width = len(center) // len(derivative)
    for sample, block in enumerate(derivative):
        inside = slice(sample * width, (sample + 1) * width)
        linear = (block * arb_mat(width, 1, step[inside])).entries()
        for there, here, expected in zip(moved[inside], image[inside], linear, strict=True):
            if not (there - here).overlaps(expected):
                raise Failed("the recorded pullback is not that of the recorded function")


def check_fixed_point(machine: Machine, proof: dict[str, Any]) -> tuple[list[arb], list[arb_mat]]:
    """Krawczyk's operator maps the box into its interior and the claimed balls; returns the solution and K."""
    tape = proof["tapes"]
    center = [number(text) for text in proof["center"]]
    # What the radius of a ball can hold, so that the box below has exactly this radius.
    radius, samples = arb(0, number(proof["radius"])).rad(), proof["samples"]
    region = [arb(point, radius) for point in center]
    derivative = jacobian(machine, tape["pullback_of_state"], region, samples)
    image = machine(tape["f"], z=center)["z0"]
    width = len(center) // samples
    proved: list[arb] = []
    for sample, block in enumerate(derivative):
        inside = slice(sample * width, (sample + 1) * width)
        c = arb_mat(width, width, floats(proof["inverses"][sample]))
        defect = [point - value for point, value in zip(center[inside], image[inside], strict=True)]
        moved = (c * arb_mat(width, 1, defect)).entries()
        remainder = identity(width) - c * (identity(width) - block)
        for point, step, row in zip(center[inside], moved, remainder.tolist(), strict=True):
            spread = (sum((abs(entry) for entry in row), arb(0)) * radius).abs_upper()
            proved.append(point - step + arb(0, spread))
    for outer, inner in zip(region, proved, strict=True):
        if not outer.contains_interior(inner):
            raise Failed("Krawczyk's operator does not map the box into its interior")
    contained(proof["solution"], proved, "fixed point")
    check_derivative(machine, tape["f"], center, radius, image, derivative)
    return proved, derivative


def check_absence(machine: Machine, proof: dict[str, Any]) -> None:
    """f(z) - z keeps its sign in one component over the whole box, so f has no fixed point there."""
    tape, place = proof["tapes"], proof["component"]
    start, reach = floats(proof["start"]), arb(float.fromhex(proof["reach"]))
    if not 0 <= place < len(start):
        raise Failed(f"the state has no component {place}")
    seed = [arb(int(other == place)) for other in range(len(start))]
    row = machine(tape["pullback_of_state"], z=[arb(point, reach) for point in start], cotangent=seed)["z0"]
    here = machine(tape["f"], z=start)["z0"][place]
    slopes = sum((abs(entry - one) for entry, one in zip(row, seed, strict=True)), arb(0))
    total = here - start[place] + arb(0, (slopes * reach).abs_upper())
    if not (total > 0 or total < 0):
        raise Failed(f"f(z) - z in component {place} lies in {total}, which does not exclude 0")
    step = [reach * (1 - 2 * (other % 2)) for other in range(len(start))]
    there = machine(tape["f"], z=[point + part for point, part in zip(start, step, strict=True)])["z0"][place]
    if not (there - here).overlaps(sum((entry * part for entry, part in zip(row, step, strict=True)), arb(0))):
        raise Failed("the recorded pullback is not that of the recorded function")


def check_contraction(machine: Machine, fixed_point: dict[str, Any], proof: dict[str, Any]) -> None:
    """||K||_2 over the neighbourhood is at most the claimed constant, for every sample."""
    center = [number(text) for text in fixed_point["center"]]
    region = [arb(point, number(proof["radius"])) for point in center]
    blocks = jacobian(machine, proof["tape"], region, fixed_point["samples"])
    for block, vectors in zip(blocks, proof["vectors"], strict=True):
        width = block.nrows()
        u, v = (arb_mat(width, width, floats(vectors[side])) for side in ("left", "right"))
        b = u.transpose() * block * v
        defect = arb(1)
        for matrix in (u, v):
            off = matrix.transpose() * matrix - identity(width)
            defect *= 1 - (inf_norm(off) * inf_norm(off.transpose())).sqrt()
        if not defect > 0:
            raise Failed("the singular vectors are not orthogonal enough")
        bound = (inf_norm(b) * inf_norm(b.transpose()) / defect).sqrt()
        if not bound <= arb(proof["constant"]).upper():
            raise Failed(f"the norm of df/dz is bounded by {bound}, not by the claimed {proof['constant']}")


def check_expansion(k: list[arb_mat], proof: dict[str, Any]) -> None:
    """||K v|| / ||v|| is at least the claimed number, for every K over the box of the fixed point."""
    vector = floats(proof["vector"])
    image = (k[proof["sample"]] * arb_mat(len(vector), 1, vector)).entries()
    ratio = (sum((x * x for x in image), arb(0)) / sum((x * x for x in vector), arb(0))).sqrt()
    if not ratio >= arb(proof["lower"]).lower():
        raise Failed(f"the norm of df/dz is at least {ratio}, not the claimed {proof['lower']}")


def check_implicit(machine: Machine, z: list[arb], k: list[arb_mat], proof: dict[str, Any]) -> None:
    """The adjoint system, solved in balls and pulled back."""
    cotangent = floats(proof["cotangent"])
    width = len(cotangent) // len(k)
    w: list[arb] = []
    for sample, block in enumerate(k):
        right = cotangent[sample * width : (sample + 1) * width]
        w += (identity(width) - block.transpose()).solve(arb_mat(width, 1, right)).entries()
    check_gradient(proof["gradient"], machine(proof["tape"], z=z, cotangent=w), "implicit gradient")


def check_n_steps(machine: Machine, proof: dict[str, Any]) -> None:
    """The reversible recursion and its adjoint."""
    beta = arb(float.fromhex(proof["beta"]))
    a = 1 - beta
    y = z = floats(proof["start"])
    visited: list[tuple[list[arb], dict[str, str]]] = []

    def half(old: list[arb], at: list[arb], tapes: dict[str, str]) -> list[arb]:
        visited.append((at, tapes))
        image = machine(tapes["f"], z=at)["z0"]
        return [a * x + beta * value for x, value in zip(old, image, strict=True)]

    for step in range(proof["num_steps"]):
        y = half(y, z, proof["tapes"][2 * step])
        z = half(z, y, proof["tapes"][2 * step + 1])
    contained(proof["z"], z, "z")
    contained(proof["y"], y, "y")
    p_z, p_y = floats(proof["cotangent_z"]), floats(proof["cotangent_y"])
    total: dict[str, list[arb]] = {name: [arb(0)] * len(texts) for name, texts in proof["gradient"].items()}

    def pull(number_of_half: int, cotangent: list[arb]) -> list[arb]:
        at, tapes = visited[number_of_half]
        parts = machine(tapes["pullback"], z=at, cotangent=cotangent)
        for name in total:
            if name != "z0":
                total[name] = [x + beta * part for x, part in zip(total[name], parts[name], strict=True)]
        return [beta * part for part in parts["z0"]]

    for step in reversed(range(proof["num_steps"])):
        q = [x + part for x, part in zip(p_y, pull(2 * step + 1, p_z), strict=True)]
        p_z = [a * x + part for x, part in zip(p_z, pull(2 * step, q), strict=True)]
        p_y = [a * x for x in q]
    total["z0"] = [x + other for x, other in zip(p_y, p_z, strict=True)]
    check_gradient(proof["gradient"], total, "gradient")


def check_direction(machine: Machine, proof: dict[str, Any]) -> None:
    """The reversible recursion, differentiated forward along the recorded direction."""
    beta = arb(float.fromhex(proof["beta"]))
    y = z = floats(proof["start"])
    y_along = z_along = floats(proof["way"])

    def half(old: list[arb], new: list[arb]) -> list[arb]:
        return [(1 - beta) * x + beta * value for x, value in zip(old, new, strict=True)]

    for step in range(proof["num_steps"]):
        image = machine(proof["tapes"][2 * step], z=z, cotangent=z_along)
        y, y_along = half(y, image["z0"]), half(y_along, image["tangent"])
        image = machine(proof["tapes"][2 * step + 1], z=y, cotangent=y_along)
        z, z_along = half(z, image["z0"]), half(z_along, image["tangent"])
    pairs = ((z_along, floats(proof["cotangent_z"])), (y_along, floats(proof["cotangent_y"])))
    total = sum((x * w for along, weights in pairs for x, w in zip(along, weights, strict=True)), arb(0))
    contained([proof["derivative"]], [total], "directional derivative")


def recheck(certificate: dict[str, Any]) -> list[str]:
    """Prove every claim again.

    Args:
        certificate: the parsed file.

    Returns:
        A line for each claim that was proved.

    Raises:
        Failed: a claim is not proved.
    """
    if certificate.get("schema") != "revdeq-certificate" or certificate.get("version") != 1:
        raise Failed("this is not a revdeq certificate of version 1")
    proofs = certificate["proofs"]
    before = flint.ctx.prec
    lines: list[str] = []
    try:
        for proof in proofs:
            flint.ctx.prec = proof["bits"]
            machine = Machine(proof["program"])
            of = f" of the problem as {proof['stored_as']} stores it" if "stored_as" in proof else ""
            if "no_fixed_point" in proof:
                check_absence(machine, proof["no_fixed_point"])
                reach = float.fromhex(proof["no_fixed_point"]["reach"])
                lines.append(f"no fixed point: none within {reach:g} of the start in every component")
            if "fixed_point" in proof:
                z, k = check_fixed_point(machine, proof["fixed_point"])
                lines.append(
                    f"fixed point{of}: {len(proof['fixed_point']['center'])} components enclosed, unique in a box"
                )
                if "contraction" in proof:
                    check_contraction(machine, proof["fixed_point"], proof["contraction"])
                    lines.append(f"contraction: constant at most {proof['contraction']['constant']}")
                if "expansion" in proof:
                    check_expansion(k, proof["expansion"])
                    lines.append(f"no contraction: the norm of df/dz is at least {proof['expansion']['lower']}")
                if "implicit" in proof:
                    check_implicit(machine, z, k, proof["implicit"])
                    lines.append(f"implicit gradient{of}: {len(proof['implicit']['gradient'])} leaves enclosed")
            if "direction" in proof:
                check_direction(machine, proof["direction"])
                lines.append("directional derivative: enclosed along one direction")
            if "n_step" in proof:
                check_n_steps(machine, proof["n_step"])
                lines.append(f"N-step gradient{of}: {len(proof['n_step']['gradient'])} leaves enclosed")
    finally:
        flint.ctx.prec = before
    if not lines:
        raise Failed("the certificate holds no proof")
    return lines


def main(arguments: list[str]) -> int:
    """Check the file that is named."""
    if len(arguments) != 1:
        print("usage: python recheck.py certificate.json", file=sys.stderr)
        return 2
    try:
        certificate = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"cannot read {arguments[0]}: {error}", file=sys.stderr)
        return 2
    try:
        lines = recheck(certificate)
    except Failed as failure:
        print(f"fails: {failure}")
        return 1
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        print(f"fails: the certificate is malformed ({type(error).__name__}: {error})")
        return 1
    print("\n".join(f"holds: {line}" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
