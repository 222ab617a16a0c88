"""Runs a program in ball arithmetic; what depends on its leaves alone is computed once."""

from __future__ import annotations

from typing import Any

from flint import arb, arb_mat

from verify.certificate.kernel.code import Code, Entry, Run
from verify.certificate.kernel.numbers import BINARY, UNARY, Failed, OtherBranch, number, power


class Runner:
    """A program at given values of its leaves; what depends on them alone is computed once.

    Attributes:
        ties: comparisons, of numbers that depend on an input, that two equal exact numbers decided.
        kinks: slopes that are a hull because two equal exact numbers were compared.
        hulls: slopes that are a hull at all.
    """

    def __init__(self, code: Code, values: dict[str, list[arb]]) -> None:
        self.code, self.values = code, values
        self.base: list[Any] = []
        self.ties = self.kinks = self.hulls = 0
        self._matrices: dict[tuple[int, int, bool], Any] = {}
        self._other: dict[int, OtherBranch] = {}
        self._tied: set[int] = set()
        self._loaded = 0
        self._once: dict[int, Any] = {}
        self._tapes: dict[str, Any] = {}
        for name, slots in code.inputs.items():
            given = [None] * len(slots) if name in ("z", "cotangent") else values[name]
            if len(given) != len(slots):
                raise Failed(f"the input {name} has {len(given)} numbers, not {len(slots)}")
            self.base += given
        self.sync()

    def sync(self) -> None:
        """Take in the instructions that were added to the program."""
        self.code.sync()
        self.base += [None] * (len(self.code.levels) - len(self.base))
        for entry in self.code.entries[self._loaded :]:
            if entry.level < 2:
                before = self.ties
                try:
                    self._carry_out(entry, self.base)
                except OtherBranch as other:
                    # It matters only to a tape that it belongs to.
                    self._other[entry.place] = other
                if self.ties > before:
                    self._tied.add(entry.place)
        self._loaded = len(self.code.entries)

    def run(self, tape: str, z: list[arb]) -> Run:
        """F, or a pullback as far as it does not depend on the cotangent, at a state.

        Raises:
            OtherBranch: a recorded comparison does not hold there.
        """
        self.sync()
        if tape not in self._tapes:
            entries, outputs = self.code.tape(tape)
            steps = [entry for entry in entries if entry.level >= 2]
            self._tapes[tape] = steps, outputs, [entry.place for entry in entries if entry.level < 2]
        steps, outputs, once = self._tapes[tape]
        for place in once:
            if place in self._other:
                raise self._other[place]
        slots, before = self.base.copy(), self.ties
        self._fill(slots, "z", z)
        try:
            for entry in steps:
                if entry.level == 2:
                    self._carry_out(entry, slots)
        except OtherBranch:
            self.ties = before
            raise
        self.ties += sum(place in self._tied for place in once)
        return Run(tape, steps, outputs, slots)

    def count_anew(self) -> None:
        """Forget the ties, kinks and hulls that were met before."""
        self.ties = self.kinks = self.hulls = 0
        self._once.clear()

    def pulled(self, run: Run, cotangent: list[arb]) -> dict[str, list[arb]]:
        """What a recorded pullback gives for a cotangent."""
        slots = run.slots.copy()
        self._fill(slots, "cotangent", cotangent)
        for entry in run.steps:
            if entry.level == 3:
                self._carry_out(entry, slots)
        return {name: [slots[place] for place in places] for name, places in run.outputs.items()}

    def _fill(self, slots: list[Any], name: str, values: list[arb]) -> None:
        places = self.code.inputs[name]
        if len(values) != len(places):
            raise Failed(f"the input {name} has {len(values)} numbers, not {len(places)}")
        slots[places.start : places.stop] = values

    def _carry_out(self, entry: Entry, slots: list[Any]) -> None:
        name, operands = entry.name, entry.places
        if name in ("less", "less_equal"):
            self._see_that(entry, slots)
            return
        results: list[Any]
        if name == "constant":
            results = [number(text) for text in entry.given["values"]]
        elif name == "pi":
            results = [arb.pi()]
        elif name == "absolute":
            results = [abs(slots[x]) for x in operands[0]]
        elif name in UNARY:
            function = UNARY[name][0]
            results = [function(slots[x]) for x in operands[0]]
        elif name in BINARY:
            combine = BINARY[name]
            results = [combine(slots[x], slots[y]) for x, y in zip(*operands, strict=True)]
        elif name == "power":
            exponent = float.fromhex(entry.given["exponent"])
            results = [power(slots[x], exponent) for x in operands[0]]
        elif name == "sum":
            rows = entry.given["rows"]
            width = len(operands[0]) // rows if rows else 0
            results = [
                sum((slots[x] for x in operands[0][row * width : (row + 1) * width]), arb(0)) for row in range(rows)
            ]
        elif name == "matmul":
            results = (self._matrix(entry, 0, slots) * self._matrix(entry, 1, slots)).entries()
        elif name == "matrix_exp":
            size = entry.given["size"]
            results = arb_mat(size, size, [slots[x] for x in operands[0]]).exp().entries()
        else:
            raise Failed(f"the program has an unknown operation {name!r}")
        if len(results) != entry.size:
            raise Failed(f"{name} gives {len(results)} numbers where {entry.size} are recorded")
        slots[entry.first : entry.first + entry.size] = results

    def _see_that(self, entry: Entry, slots: list[Any]) -> None:
        strictly = entry.name == "less"
        for one, other, outcome in zip(*entry.places, entry.given["outcome"], strict=True):
            if one == other:
                continue
            x, y = slots[one], slots[other]
            if x < y if strictly else x <= y:
                holds = True
            elif x >= y if strictly else x > y:
                holds = False
            else:
                raise OtherBranch(f"whether {x.str(8)} is below {y.str(8)} is undecided")
            if holds is not (outcome == "1"):
                raise OtherBranch(f"a recorded branch goes the other way at {x.str(8)}, {y.str(8)}")
            self.ties += entry.level > 0 and x.is_exact() and y.is_exact() and x == y

    def _matrix(self, entry: Entry, side: int, slots: list[Any], turned: bool = False) -> Any:
        """A factor of a product; one that does not depend on the state is the same matrix at every run."""
        key = (entry.place, side, turned)
        if key in self._matrices:
            return self._matrices[key]
        if turned:
            made = self._matrix(entry, side, slots).transpose()
        else:
            m, k, n = entry.given["shape"]
            rows, columns = ((m, k), (k, n))[side]
            made = arb_mat(rows, columns, [slots[x] for x in entry.places[side]])
        if entry.slots[side] < 2:
            self._matrices[key] = made
        return made
