"""Equilibria for a whole box of inputs: that they exist, where they are, how they move, what a classifier decides.

z* is the fixed point at the middle x0 of the box. For every x of the box, Krawczyk's operator of f(., x) about z*,

    z* + C J (x - x0) + (I - C (I - K)) (Z - z*),    K, J enclosing df/dz and df/dx over Z and the box of inputs,

lies inside Z, so that f(., x) has one and only one fixed point z*(x) in Z. Of any two inputs of the box,

    z*(x) - z*(x') = (I - K)^-1 J (x - x')

with the same enclosures, by the mean value theorem; where f has kinks, they enclose Clarke's generalised derivatives.
"""

from __future__ import annotations

from typing import Any

import flint
from flint import arb, arb_mat

from verify.certificate.kernel.claims import contained
from verify.certificate.kernel.code import Code, Run
from verify.certificate.kernel.fixed_points import NORM_BITS, ball_radius, fixed_point, identity, inf_norm, jacobian
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.numbers import Failed, exact, number
from verify.certificate.kernel.prove import moved


SET_SCHEMA, SET_VERSION = "revdeq-set-certificate", 1
SET_DIGITS = 10
"""Digits at which enclosures over a box of inputs are written: they are wide, and more would be lost."""


class Neighbourhood:
    """f over a box of states about z* and a box of inputs about x0.

    Args:
        derivative: K.
        by_inputs: J.
        inverse: C, an approximate inverse of I - K.

    Attributes:
        remainder: I - C (I - K).
        moves: C J.
    """

    def __init__(self, derivative: arb_mat, by_inputs: arb_mat, inverse: arb_mat) -> None:
        self._system = inverse * (identity(derivative.nrows()) - derivative)
        self.remainder = identity(derivative.nrows()) - self._system
        self.moves = inverse * by_inputs

    def spread(self, radius: arb, radii: list[arb]) -> list[arb]:
        """How far Krawczyk's operator reaches from z*, by components.

        Args:
            radius: of the box of inputs.
            radii: of the box of states.
        """
        from_inputs = reach(self.moves, [radius] * self.moves.ncols())
        return [(x + y).upper() for x, y in zip(from_inputs, reach(self.remainder, radii), strict=True)]

    def slopes(self) -> arb_mat:
        """(I - K)^-1 J.

        Raises:
            Failed: the balls do not exclude a singular system.
        """
        try:
            found = self._system.solve(self.moves)
        except ZeroDivisionError as error:
            raise Failed("the balls do not exclude that I - df/dz is singular") from error
        if not all(entry.is_finite() for entry in found.entries()):
            raise Failed("the balls do not bound (I - df/dz)^-1 df/dx")
        return found


def slopes_by(machine: Machine, run: Run, leaf: str) -> arb_mat:
    """The derivative of f by a leaf over what was run, n x m."""
    size, count = len(run.output()), len(machine.values[leaf])
    rows: list[arb] = []
    for place in range(count):
        along = machine.leaves_along({leaf: [arb(other == place) for other in range(count)]})
        rows += machine.forward(run, [arb(0)] * size, along)
    return arb_mat(count, size, rows).transpose()


SQUARINGS = 6
"""Of A A^T, after which the root of the row sums' norm is at most n^(1/128) times the Euclidean norm."""


def euclidean_norm(matrix: arb_mat) -> arb:
    """An upper bound of ||A||_2, for the middle by powers of A A^T, and what the radii add."""
    entries = matrix.entries()
    middle, rest = (
        arb_mat(matrix.nrows(), matrix.ncols(), part)
        for part in ([x.mid() for x in entries], [x.rad().abs_upper() for x in entries])
    )
    # Each square is scaled, so that no power leaves the range of float64, in which it is shown.
    square, scale = middle * middle.transpose(), arb(1)
    for step in range(SQUARINGS):
        size = inf_norm(square).upper()
        if size == 0:
            break
        square = square * (1 / size)
        scale *= size ** (arb(1) / 2**step)
        square = square * square
    norm = (scale * inf_norm(square) ** (arb(1) / 2**SQUARINGS)).sqrt()
    return norm + (inf_norm(rest) * inf_norm(rest.transpose())).sqrt()


def reach(matrix: arb_mat, radii: list[arb]) -> list[arb]:
    """Upper bounds of the components of A v for |v| <= radii."""
    return [
        sum((abs(entry) * radius for entry, radius in zip(row, radii, strict=True)), arb(0)).abs_upper()
        for row in matrix.tolist()
    ]


class ProvedSet:
    """What is proved of a box of inputs.

    Attributes:
        state: balls that contain z*(x) for every x of the box.
        slopes: S with z*(x) - z*(x') = S (x - x') for any two inputs of the box.
        decision: the class of the greatest logit at x0, or None without a readout.
        margins: class -> how far the decision's logit is above its own at least, over the whole box.
        alone: no other fixed point is as near to z* in every component.
    """

    def __init__(
        self,
        point: list[arb],
        slopes: arb_mat,
        radius: arb,
        radii: list[arb],
        readout: tuple[arb_mat, list[arb]] | None,
    ) -> None:
        self.slopes, self.alone = slopes, min(map(float, radii), default=0.0)
        spread = reach(slopes, [radius] * slopes.ncols())
        self.state = [z + arb(0, r) for z, r in zip(point, spread, strict=True)]
        self.decision: int | None = None
        self.margins: dict[int, arb] = {}
        if readout is not None:
            self._decide(point, radius, *readout)

    @property
    def lipschitz(self) -> dict[str, arb]:
        """Bounds of |z*(x) - z*(x')| / |x - x'|, in the greatest and in the Euclidean norm."""
        return {"greatest": inf_norm(self.slopes).upper(), "euclidean": euclidean_norm(self.slopes).upper()}

    def _decide(self, point: list[arb], radius: arb, weight: arb_mat, bias: list[arb]) -> None:
        """Bound the differences of logits, for the logits move together."""
        logits = [x + b for x, b in zip((weight * arb_mat(len(point), 1, point)).entries(), bias, strict=True)]
        best = max(range(len(logits)), key=lambda place: float(logits[place].mid()))
        rows = weight.tolist()
        differences = arb_mat([[x - y for x, y in zip(rows[best], row, strict=True)] for row in rows])
        spread = reach(differences * self.slopes, [radius] * self.slopes.ncols())
        self.decision = best
        for place, (other, r) in enumerate(zip(logits, spread, strict=True)):
            if place != best:
                self.margins[place] = (logits[best] - other - r).lower()


def prove_set(certificate: dict[str, Any]) -> ProvedSet:
    """Carry out the proof of a certificate of a set, without looking at its claims.

    Raises:
        Failed: it does not hold.
    """
    code, proof, leaf = Code(certificate["program"]), certificate["proof"], certificate["leaf"]
    values = {name: exact(text) for name, text in certificate["values"].items()}
    radius = arb(certificate["radius"])
    if not radius > 0:
        raise Failed(f"the radius {radius} of the inputs is not positive")
    with flint.ctx.workprec(proof["bits"]):
        machine = Machine(code, values)
        center = [number(text) for text in proof["center"]]
        inverse = arb_mat(len(center), len(center), exact(proof["inverse"]))
        point, _, _ = fixed_point(machine, proof["tape"], center, ball_radius(number(proof["radius"])), [inverse])
    with flint.ctx.workprec(NORM_BITS):
        radii = exact(proof["radii"])
        around = moved(machine, leaf, radius)
        run = around.run(proof["around"], [z + arb(0, r) for z, r in zip(point, radii, strict=True)])
        preconditioner = arb_mat(len(center), len(center), exact(proof["preconditioner"]))
        near = Neighbourhood(jacobian(around, run, 1)[0], slopes_by(around, run, leaf), preconditioner)
        for place, (reached, allowed) in enumerate(zip(near.spread(radius, radii), radii, strict=True)):
            if not reached < allowed:
                raise Failed(f"Krawczyk's operator leaves the box in component {place}")
        return ProvedSet(point, near.slopes(), radius, radii, readout_of(certificate, len(center)))


def readout_of(certificate: dict[str, Any], size: int) -> tuple[arb_mat, list[arb]] | None:
    """The weight and the bias of a classifier's logits W z + b."""
    given = certificate["readout"]
    if given is None:
        return None
    bias = exact(given["bias"])
    return arb_mat(len(bias), size, exact(given["weight"])), bias


def set_findings(certificate: dict[str, Any], proved: ProvedSet | None) -> list[dict[str, str]]:
    """What people read of a certificate of a set: claim, answer, sentence."""
    claim = "equilibrium for every input"
    if proved is None:
        return [{"claim": claim, "answer": "undecided", "sentence": str(certificate["given_up"])}]
    leaf, radius = certificate["leaf"], certificate["radius"]
    inputs = f"every {leaf} within {radius:g} of the given one in every component"
    widest = max((float(ball.rad()) for ball in proved.state), default=0.0)
    greatest, euclidean = (float(bound.upper()) for bound in proved.lipschitz.values())
    within = f"f has one fixed point within {widest:.2e} of z*, and no other within {proved.alone:.2e}"
    moves = (
        f"there z* moves by at most {greatest:.4g} times as far as {leaf} in the greatest norm, and "
        f"{euclidean:.4g} times in the Euclidean norm"
    )
    found = [
        {"claim": claim, "answer": "certified", "sentence": f"for {inputs} {within}"},
        {"claim": "Lipschitz bound", "answer": "certified", "sentence": moves},
    ]
    if proved.decision is not None:
        rival, margin = min(proved.margins.items(), key=lambda item: (item[1] > 0, float(item[1])))
        best, by = f"class {proved.decision}", f"{float(margin):.4g}"
        if margin > 0:
            answer, sentence = "certified", f"{best} has the greatest logit for {inputs}, by {by} or more"
        else:
            answer = "undecided"
            sentence = (
                f"the logit of class {rival} is not known to stay below that of {best} for {inputs}: the difference is "
                f"{by} or more; a smaller radius may be decided"
            )
        found.append({"claim": "decision", "answer": answer, "sentence": sentence})
    return found


def check_set_claims(certificate: dict[str, Any], proved: ProvedSet) -> None:
    """See that what is proved lies inside what is claimed, and that nothing is claimed much more widely."""
    with flint.ctx.workprec(NORM_BITS):
        contained({"z": certificate["solution"]}, {"z": proved.state}, SET_DIGITS)
        for norm, bound in proved.lipschitz.items():
            claimed = arb(certificate["lipschitz"][norm])
            if not bound <= claimed.upper() or not claimed.upper() <= bound * arb("1.001"):
                raise Failed(f"the Lipschitz bound is {bound}, not the claimed {claimed}")
        if certificate["decision"] != proved.decision or len(certificate["margins"]) != len(proved.margins):
            raise Failed("the decision is not that of the readout")
        for text, margin in zip(certificate["margins"], proved.margins.values(), strict=True):
            if not (arb(text).lower() <= margin and arb(text).lower() >= margin - abs(margin) * arb("0.001")):
                raise Failed(f"a margin is {margin}, not the claimed {text}")
