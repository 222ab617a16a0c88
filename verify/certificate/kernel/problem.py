"""The numbers of a problem, and what a proof gives of it."""

from __future__ import annotations

import math
from typing import Any

import flint
from flint import arb, arb_mat

from verify.certificate.kernel.enclosures import Agreement, wide_leaves
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.numbers import Failed, exact


class Problem:
    """The numbers of one problem: as it was given, or as a narrower dtype stores it."""

    def __init__(self, certificate: dict[str, Any], problem: dict[str, Any]) -> None:
        self.beta = arb(certificate["beta"])
        self.num_steps: int = certificate["num_steps"]
        self.digits: int = certificate["digits"] if not problem["stored_as"] else min(certificate["digits"], 20)
        self.state: dict[str, int] = {name: math.prod(shape) for name, shape in certificate["state"].items()}
        leaves: dict[str, Any] = certificate["leaves"]
        self.leaves = [name for name in leaves if name not in self.state]
        values = {name: exact(text) for name, text in problem["values"].items()}
        self.start = [x for name in self.state for x in values.pop(name)]
        for name, shape in leaves.items():
            if name not in self.state and len(values[name]) != math.prod(shape):
                raise Failed(f"the leaf {name} has {len(values[name])} numbers, not shape {shape}")
        self.values = values
        self.c_z, self.c_y = exact(certificate["cotangent_z"]), exact(certificate["cotangent_y"])
        if not len(self.start) == len(self.c_z) == len(self.c_y) == sum(self.state.values()):
            raise Failed("the start or a cotangent has not the size of the state")

    @property
    def cotangent(self) -> list[arb]:
        """C of <c, z*>: both states are the fixed point."""
        return [x + y for x, y in zip(self.c_z, self.c_y, strict=True)]

    @property
    def near(self) -> arb:
        """The radius within which a leaf is moved to see whether it stands on a kink."""
        return arb(2) ** -(flint.ctx.prec // 2)

    def own(self, gradient: dict[str, list[arb]]) -> dict[str, list[arb]]:
        """The leaves of a gradient that the certificate is about."""
        return {name: gradient[name] for name in self.leaves}


class Proved:
    """What one proof of a certificate gives.

    Attributes:
        state: enclosures of the fixed point or of z_N.
        y: of y_N.
        gradient: of f, by leaf; the start's, joined, is "z0".
        unknown: the leaves that are not enclosed to the digits asked, or on a kink, with which of the two.
        agreement: with torch's backward, or None where none was recorded.
        torch: the gradient that torch's backward defines, where it is another one.
        blocks: K over the box of the fixed point.
    """

    def __init__(self, kind: str, bits: int) -> None:
        self.kind, self.bits = kind, bits
        self.state: list[arb] = []
        self.y: list[arb] = []
        self.gradient: dict[str, list[arb]] | None = None
        self.unknown: dict[str, str] = {}
        self.agreement: Agreement | None = None
        self.torch: dict[str, list[arb]] | None = None
        self.blocks: list[arb_mat] = []
        self.derivative: arb | None = None

    @property
    def truth(self) -> dict[str, list[arb]]:
        """The gradient that torch is held to: that of f, or where torch's backward is another, what that defines."""
        if self.torch is not None:
            return self.torch
        return {name: balls for name, balls in (self.gradient or {}).items() if name not in self.unknown}

    def judge(self, problem: Problem, machine: Machine, kinked: set[str]) -> None:
        """See which leaves are known."""
        if "" in wide_leaves({**(self.gradient or {}), "": self.state}, problem.digits):
            self.unknown = dict.fromkeys(self.gradient or {}, "wide")
            return
        for name in wide_leaves(self.gradient or {}, problem.digits):
            self.unknown[name] = "kink" if machine.hulls else "wide"
        self.unknown |= dict.fromkeys(kinked, "kink")

    def without_torch(self) -> None:
        """Forget what torch's backward was found to give."""
        self.agreement = self.torch = None

    def compare(self, torch: dict[str, list[arb]], also: dict[str, list[arb]], digits: int) -> bool:
        """Compare with what torch's backward gives; true where they are apart."""
        known = {name: balls for name, balls in {**(self.gradient or {}), **also}.items() if name not in self.unknown}
        self.agreement = Agreement(known, torch, digits)
        return self.agreement.apart is not None


KINDS = ("fixed_point", "n_step", "no_fixed_point", "direction")
