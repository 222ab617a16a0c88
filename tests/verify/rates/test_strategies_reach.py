"""The strategies themselves: what they draw is what it says, and the hard cases are among it."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy

import rational_iteration as exact
from rational_maps import (
    SPECTRUM_KINDS,
    betas,
    constants,
    contractions,
    converging_pairs,
    diverging_pairs,
    linear_maps,
)


SEARCH = settings(deadline=None, derandomize=True, max_examples=400, database=None, phases=[Phase.generate])
EXACT = settings(deadline=None, derandomize=True, max_examples=60)


HARD_CASES: list[tuple[SearchStrategy[Any], Callable[[Any], bool]]] = [
    (betas(), lambda b: abs(1 - b) < Fraction(1, 50)),
    (betas(), lambda b: b > Fraction(19, 10)),
    (constants(), lambda k: k == 0),
    (constants(), lambda k: k >= Fraction(99, 100)),
    (converging_pairs(), lambda pair: pair[0] > 1 and pair[0] * (1 + pair[1]) / 2 > Fraction(99, 100)),
    (diverging_pairs(), lambda pair: pair[1] < 1 and pair[0] == 2 / (1 + pair[1])),
    (diverging_pairs(), lambda pair: pair[1] > 1 and pair[0] < 1),
    (contractions("inf"), lambda f: any(layer.name == "max-pool" for layer in f.layers) and f.dimension > 2),
    (contractions("2"), lambda f: any(layer.name == "rotation" for layer in f.layers) and not f.linear),
    (contractions("2"), lambda f: f.dimension == 1),
    (contractions("2", transcendental=True), lambda f: sum(layer.name == "tanh" for layer in f.layers) > 1),
    (linear_maps(), lambda m: m.kind == "defective"),
    (linear_maps(), lambda m: m.kind == "general" and not m.normal),
    (linear_maps("real"), lambda m: len(set(m.eigenvalues)) < m.dimension),
    (linear_maps(), lambda m: max(abs(part) for kappa in m.eigenvalues for part in kappa) == Fraction(63, 64)),
]


@pytest.mark.parametrize(("strategy", "hard"), HARD_CASES, ids=range(len(HARD_CASES)))
def test_strategy_reaches_the_hard_case(strategy, hard):
    assert hard(find(strategy, hard, settings=SEARCH))


def test_strategies_never_draw_what_reversal_cannot_undo():
    def impossible(beta: Fraction) -> bool:
        return beta == 1 or beta <= 0

    with pytest.raises(NoSuchExample):
        find(betas(), impossible, settings=SEARCH)


@pytest.mark.parametrize("kind", SPECTRUM_KINDS)
def test_linear_maps_have_the_stated_eigenvalues(kind):
    @given(linear_maps(kind))
    @EXACT
    def check(linear):
        square = exact.matrix(linear.matrix)
        for point in range(linear.dimension + 1):
            real, imaginary = exact.rational(Fraction(1)), exact.rational(Fraction(0))
            for x, y in linear.eigenvalues:
                u, v = point - exact.rational(x), -exact.rational(y)
                real, imaginary = real * u - imaginary * v, real * v + imaginary * u
            assert (exact.characteristic(square, point), 0) == (real, imaginary)

    check()


@given(linear_maps())
@EXACT
def test_linear_maps_are_normal_where_they_say_so(linear):
    square = exact.matrix(linear.matrix)
    commutes = square * square.transpose() == square.transpose() * square
    assert commutes or not linear.normal


def test_defective_maps_are_not_diagonalisable():
    @given(linear_maps("defective"))
    @EXACT
    def check(linear):
        # (K - kappa)(K - kappa') ... over distinct eigenvalues vanishes only for a diagonalisable K.
        square = exact.matrix(linear.matrix)
        product = exact.identity(linear.dimension)
        for x, _ in set(linear.eigenvalues):
            product = product * (square - exact.rational(x) * exact.identity(linear.dimension))
        assert product != 0 * product

    check()
