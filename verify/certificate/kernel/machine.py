"""Differentiates a program that was run, backwards and forwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flint import arb, arb_mat

from verify.certificate.kernel.code import Entry, Gradient, Run
from verify.certificate.kernel.numbers import HULL, UNARY, Failed, exponential_slope, power_slope
from verify.certificate.kernel.rows import are_rows, exponential_rows, product_rows
from verify.certificate.kernel.runner import Runner


class Machine(Runner):
    """A program at given values of its leaves, with its derivatives."""

    def reverse(self, run: Run, cotangent: list[Any], gradient: Gradient | None = None) -> list[arb]:
        """K(z)^T c of the f that was run; zeros of c and what they lead to are left out.

        Args:
            run: of a tape of f.
            cotangent: c; None for a zero.
            gradient: takes up what reaches the leaves, if given.
        """
        given = [None if value is None or value.is_zero() else value for value in cotangent]
        return [arb(0) if value is None else value for value in self._pulled_back(run, given, gradient)]

    def reverse_rows(self, run: Run, cotangents: list[arb_mat]) -> list[arb_mat]:
        """`reverse` of many cotangents at once, each number of which is a row: one number for each cotangent."""
        count = cotangents[0].ncols() if cotangents else 0
        return [arb_mat(1, count) if row is None else row for row in self._pulled_back(run, cotangents, None)]

    def _pulled_back(self, run: Run, cotangent: list[Any], gradient: Gradient | None) -> list[Any]:
        slots: list[Any] = [None] * len(run.slots)
        for place, value in zip(run.outputs["z0"], cotangent, strict=True):
            if value is None:
                continue
            target = slots if self.code.levels[place] >= 2 else None if gradient is None else gradient.slots
            if target is not None:
                target[place] = value if target[place] is None else target[place] + value
        for entry in reversed(run.steps):
            self._back(entry, run.slots, run.slopes, slots, gradient)
        return [slots[place] for place in self.code.inputs["z"]]

    def leaves(self, gradient: Gradient) -> dict[str, list[arb]]:
        """The gradient by every leaf."""
        for (place, side), matrix in gradient.matrices.items():
            self._spread(self.code.entries[place].places[side], matrix.entries(), None, gradient)
        slots = gradient.slots + [None] * (len(self.base) - len(gradient.slots))
        for entry in reversed(self.code.entries):
            if entry.level == 1 and entry.place not in self._other:
                self._back(entry, self.base, self._once, slots, None, least=1)
        return {
            name: [arb(0) if slots[place] is None else slots[place] for place in places]
            for name, places in self.code.inputs.items()
            if name not in ("z", "cotangent")
        }

    def _spread(self, places: list[int], values: Iterable[Any], slots: Any, gradient: Gradient | None) -> None:
        """Add what reaches an operand's numbers: to `slots` where they depend on the state, else to the gradient."""
        levels = self.code.levels
        others = None if gradient is None else gradient.slots
        for place, value in zip(places, values, strict=True):
            if value is None:
                continue
            level = levels[place]
            target = slots if level >= 2 and slots is not None else others if level == 1 else None
            if target is not None:
                known = target[place]
                target[place] = value if known is None else known + value

    def _back(
        self,
        entry: Entry,
        values: list[Any],
        slopes: dict[int, Any],
        slots: list[Any],
        gradient: Gradient | None,
        least: int = 2,
    ) -> None:
        received = slots[entry.first : entry.first + entry.size]
        if all(value is None for value in received):
            return
        wanted = [level >= least or (gradient is not None and level == 1) for level in entry.slots]
        if least == 1:
            # Nothing here depends on the state, so every slot has its adjoint in one list.
            def give(side: int, parts: Iterable[Any]) -> None:
                for place, part in zip(entry.places[side], parts, strict=True):
                    if part is not None and self.code.levels[place] == 1:
                        slots[place] = part if slots[place] is None else slots[place] + part
        else:

            def give(side: int, parts: Iterable[Any]) -> None:
                self._spread(entry.places[side], parts, slots, gradient)

        name = entry.name
        if name == "sum":
            width = len(entry.places[0]) // entry.size
            give(0, [value for value in received for _ in range(width)])
        elif name == "matrix_exp":
            # The adjoint of E -> L(A, E) is G -> L(A^T, G).
            size = entry.given["size"]
            turned = arb_mat(size, size, [values[place] for place in entry.places[0]]).transpose()
            if are_rows(received):
                give(0, exponential_rows(turned, received))
            else:
                give(0, exponential_slope(turned, received).entries())
        elif name == "matmul":
            self._back_through_product(entry, values, received, wanted, give, gradient if least == 2 else None)
        elif name in ("add", "subtract"):
            if wanted[0]:
                give(0, received)
            if wanted[1]:
                give(1, received if name == "add" else [None if value is None else -value for value in received])
        else:
            if entry.place not in slopes:
                slopes[entry.place] = self._slopes(entry, values)
            for side, factors in enumerate(slopes[entry.place]):
                if wanted[side]:
                    give(
                        side,
                        [None if c is None or s is None else c * s for c, s in zip(received, factors, strict=True)],
                    )

    def _back_through_product(
        self,
        entry: Entry,
        values: list[Any],
        received: list[Any],
        wanted: list[bool],
        give: Callable[[int, Iterable[Any]], None],
        gradient: Gradient | None,
    ) -> None:
        if are_rows(received):
            for side in (0, 1):
                if wanted[side]:
                    give(side, product_rows(received, side, self._matrix(entry, 1 - side, values, turned=side == 1)))
            return
        m, _, n = entry.given["shape"]
        c = arb_mat(m, n, [arb(0) if value is None else value for value in received])
        for side in (0, 1):
            if not wanted[side]:
                continue
            if side == 0:
                product = c * self._matrix(entry, 1, values, turned=True)
            else:
                product = self._matrix(entry, 0, values, turned=True) * c
            if gradient is not None and entry.slots[side] == 1:
                key = (entry.place, side)
                known = gradient.matrices.get(key)
                gradient.matrices[key] = product if known is None else known + product
            else:
                give(side, (None if value.is_zero() else value for value in product.entries()))

    def _slopes(self, entry: Entry, values: list[Any]) -> list[list[Any]]:
        """The derivatives of an instruction's results by its operands, None for one that is zero."""
        name = entry.name
        xs = [values[place] for place in entry.places[0]]
        results = values[entry.first : entry.first + entry.size]
        if name in UNARY:
            slope = UNARY[name][1]
            return [[slope(x, y) for x, y in zip(xs, results, strict=True)]]
        if name == "absolute":
            return [[self._sign(x) for x in xs]]
        if name == "power":
            exponent = float.fromhex(entry.given["exponent"])
            return [[power_slope(x, y, exponent) for x, y in zip(xs, results, strict=True)]]
        ys = [values[place] for place in entry.places[1]]
        if name == "multiply":
            return [ys, xs]
        if name == "divide":
            return [[1 / y for y in ys], [-(result / y) for y, result in zip(ys, results, strict=True)]]
        if name in ("maximum", "minimum"):
            places = zip(entry.places[0], entry.places[1], strict=True)
            pairs = [self._chosen(name, one == other, x, y) for (one, other), x, y in zip(places, xs, ys, strict=True)]
            return [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
        raise Failed(f"the operation {name!r} has no derivative")

    def forward(self, run: Run, along: list[arb], leaves: list[Any]) -> list[arb]:
        """The derivative of f along a direction of the state and of the leaves.

        Args:
            run: of a tape of f.
            along: of the state.
            leaves: what `leaves_along` gives.
        """
        slots = leaves + [None] * (len(run.slots) - len(leaves))
        self._fill(slots, "z", along)
        for entry in run.steps:
            self._ahead(entry, run.slots, slots)
            run.slopes.pop(entry.place, None)
        return [arb(0) if slots[place] is None else slots[place] for place in run.outputs["z0"]]

    def leaves_along(self, direction: dict[str, list[arb]]) -> list[Any]:
        """The derivative, along a direction of the leaves, of all that depends on them alone."""
        slots: list[Any] = [None] * len(self.base)
        for name, values in direction.items():
            self._fill(slots, name, values)
        for entry in self.code.entries:
            if entry.level == 1 and entry.place not in self._other:
                self._ahead(entry, self.base, slots)
        return slots

    def _ahead(self, entry: Entry, values: list[Any], slots: list[Any]) -> None:
        given = [[slots[place] for place in operand] for operand in entry.places]
        moving = [any(value is not None for value in operand) for operand in given]
        if not entry.size or not any(moving):
            return
        results: list[Any] = [None] * entry.size
        if entry.name == "sum":
            width = len(given[0]) // entry.size
            rows = [given[0][row * width : (row + 1) * width] for row in range(entry.size)]
            results = [sum((value for value in row if value is not None), arb(0)) for row in rows]
        elif entry.name == "matrix_exp":
            size = entry.given["size"]
            matrix = arb_mat(size, size, [values[place] for place in entry.places[0]])
            results = exponential_slope(matrix, given[0]).entries()
        elif entry.name == "matmul":
            m, k, n = entry.given["shape"]
            shapes = ((m, k), (k, n))
            for side in (0, 1):
                if moving[side]:
                    turned = arb_mat(*shapes[side], [arb(0) if value is None else value for value in given[side]])
                    other = self._matrix(entry, 1 - side, values)
                    parts = (turned * other if side == 0 else other * turned).entries()
                    results = [y if x is None else x + y for x, y in zip(results, parts, strict=True)]
        elif entry.name in ("add", "subtract"):
            for side, sign in enumerate((1, 1 if entry.name == "add" else -1)):
                for place, value in enumerate(given[side]):
                    if value is not None:
                        part = value if sign > 0 else -value
                        results[place] = part if results[place] is None else results[place] + part
        else:
            for operand, factors in zip(given, self._slopes(entry, values), strict=True):
                for place, (value, factor) in enumerate(zip(operand, factors, strict=True)):
                    if value is not None and factor is not None:
                        part = value * factor
                        results[place] = part if results[place] is None else results[place] + part
        slots[entry.first : entry.first + entry.size] = results

    def _sign(self, x: arb) -> arb:
        if x > 0:
            return arb(1)
        if x < 0:
            return arb(-1)
        self.hulls += 1
        self.kinks += x.is_zero()
        return arb(0, 1)

    def _chosen(self, name: str, same: bool, x: arb, y: arb) -> tuple[arb | None, arb | None]:
        first, second = (x, y) if name == "maximum" else (y, x)
        if same or first > second:
            return arb(1), None
        if first < second:
            return None, arb(1)
        self.hulls += 1
        self.kinks += x.is_exact() and y.is_exact()
        return HULL, HULL
