"""What each check must show: one table of comparison, threshold, reason and least number of rows.

Thresholds are ratios, counts and bits. R is |measured - reference| over the spread that rounding alone gives the same
algorithm (THEORY 4), so that one threshold serves every dtype, device and beta.

References:
    Dtype-free test ratios with one threshold are LAPACK's practice: LAPACK Working Note 41 (Installation Guide).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


Comparison = Literal["<=", ">=", "=="]

RATIO_LIMIT = 10.0
REFERENCE_SHARE = 2.0**-10
LOGIC_POWER = 2.0**-20
ROUNDING_POWER = 2.0**-3
EFFECTIVE_SHARE = 2.0 / 3.0


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How the rows of one check are judged.

    Args:
        claim: what a passing row says, in words.
        comparison: how `measured` is compared with the threshold.
        threshold: the number it is compared with.
        why: where the threshold comes from.
        least: smallest number of measured rows in a run; fewer fail. What the quick profile gives on one device, less a
            few where power depends on how numbers happen to round.
        power: largest relative size of rounding at which a row counts, None where rounding plays no part.
        least_logic: smallest number of rows that see a relative fault of 2^-20.
        reference: whether the rows carry a reference's uncertainty, at most 2^-10 of what it judges (A0).
    """

    claim: str
    comparison: Comparison
    threshold: float
    why: str
    least: int
    power: float | None = None
    least_logic: int = 0
    reference: bool = False


def holds(comparison: Comparison, measured: float, threshold: float) -> bool:
    """Whether `measured` meets the threshold; False for NaN, whatever the comparison."""
    if comparison == "<=":
        return measured <= threshold
    if comparison == ">=":
        return measured >= threshold
    return measured == threshold


_RATIO = "R is 1 on average by construction; over 44 problems and three dtypes it stayed in [.03, 3.7], so 10 is slack"
_EXACT = "the two sides are the same operations on the same numbers, so they agree to the last bit"

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "forward": Criterion(
            claim="z1 and y1 are the N-step iterates, up to rounding",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=1680,
            power=ROUNDING_POWER,
            least_logic=1200,
            reference=True,
        ),
        "reconstruction": Criterion(
            claim="the inverse steps return the earlier states, up to the rounding that the inverse amplifies",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=800,
            power=ROUNDING_POWER,
            least_logic=550,
            reference=True,
        ),
        "backward-states": Criterion(
            claim="backward evaluates f at the states of the forward pass, up to amplified rounding",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=800,
            power=ROUNDING_POWER,
            least_logic=550,
            reference=True,
        ),
        "not-stored": Criterion(
            claim="backward reverses the states: it neither stores nor widens them",
            comparison=">=",
            threshold=1e-3,
            why="where rounding is amplified 1e3 times, a state a thousand times better was not reversed (A4)",
            least=60,
            reference=True,
        ),
        "gradient": Criterion(
            claim="each leaf's gradient is the gradient of the N-step map, up to rounding",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=6200,
            power=ROUNDING_POWER,
            least_logic=4200,
            reference=True,
        ),
        "bitwise-states": Criterion(
            claim="integer states and remainders undo every half step to the bit, at any depth and for f in any dtype",
            comparison="==",
            threshold=0.0,
            why=_EXACT,
            least=432,
        ),
        "bitwise-cotangents": Criterion(
            claim="every cotangent of the bitwise reversal is that of the unrolled iteration in the same arithmetic",
            comparison="==",
            threshold=0.0,
            why="vector-Jacobian products of one function at the same states, in the same order",
            least=288,
        ),
        "bitwise-refusals": Criterion(
            claim="a beta without bitwise form, an overflow and a function that does not repeat are refused",
            comparison="==",
            threshold=0.0,
            why="each would come out as a finite, wrong gradient",
            least=54,
        ),
        "tape-bytes": Criterion(
            claim="a remainder takes log2 m bits per state component and half step, m a power of two",
            comparison="<=",
            threshold=1.0,
            why="the information that a half step loses (THEORY T1), packed without a gap",
            least=9,
        ),
        "rounding-bound": Criterion(
            claim="no error of a state, of its reversal or of a gradient crosses the bound that is proved for it",
            comparison="<=",
            threshold=1.0,
            why="A6: the bounds are theorems about rounding to nearest, so there is no slack",
            least=1300,
        ),
        "envelope-safe": Criterion(
            claim="after the predicted number of steps the gradient is as right as was asked",
            comparison="<=",
            threshold=1.0,
            why="the envelope is what plans stand on: a measured point beyond it is a broken promise",
            least=9,
        ),
        "envelope-near": Criterion(
            claim="the number of steps that meets the tolerance is not far beyond the predicted one",
            comparison="<=",
            threshold=20.0,
            why="an envelope that is far too careful says nothing; of 567 settings the farthest was 16 times inside",
            least=2,
        ),
        "bindings": Criterion(
            claim="module parameters and captured tensors get the gradient that args get",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=264,
            power=ROUNDING_POWER,
            least_logic=264,
            reference=True,
        ),
        "implicit-gradient": Criterion(
            claim="each leaf's implicit gradient is the gradient of the fixed point, up to the tolerance asked for",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why="an adjoint residual r leaves an error of at most r/(1-k) in the adjoint and about as much in a leaf",
            least=164,
            reference=True,
        ),
        "target-difference": Criterion(
            claim="the exact and the implicit gradient draw together at the forward rate, (C0 + C1 N) rho^N",
            comparison="<=",
            threshold=0.05,
            why="A8: the fitted slope is within 5 % of ln rho (THEORY M2)",
            least=6,
        ),
        "finite-differences": Criterion(
            claim="the gradient agrees with high-precision differences of the N-step map, N frozen",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=32,
            power=LOGIC_POWER,
            least_logic=32,
            reference=True,
        ),
        "float64-differences": Criterion(
            claim="the gradient agrees with central differences of the subject's own forward pass",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why="the unit is the difference's own error estimate, with what rounding does to the gradient",
            least=32,
        ),
        "taylor-order": Criterion(
            claim="the first-order Taylor remainder with this gradient is of second order",
            comparison="<=",
            threshold=0.05,
            why="a wrong gradient leaves order 1; the order is fitted where h spans decades above round-off",
            least=32,
        ),
        "dot-product": Criterion(
            claim="<J v, w> = <v, J^T w> for forward-mode J and the subject's J^T",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why=_RATIO,
            least=32,
            power=LOGIC_POWER,
            least_logic=32,
        ),
        "convergence-rate": Criterion(
            claim="the error falls by the spectral rate of the step",
            comparison="<=",
            threshold=0.02,
            why="A7: |ln(observed / predicted)| on normal fixtures, fitted above round-off (THEORY T2)",
            least=20,
        ),
        "rate-grid": Criterion(
            claim="over a grid of maps, betas and dtypes the slowest component of the error falls by the rate of T2",
            comparison="<=",
            threshold=0.02,
            why="A7: |ln(observed / predicted)|; beyond float64, normal, linear maps less the fit's own uncertainty",
            least=120,
            power=0.02,
        ),
        "rate-bound": Criterion(
            claim="no error of the grid is larger after N steps than the contraction constant and rounding allow",
            comparison="<=",
            threshold=1.0,
            why="A6: the majorant of T3 is proved for every map with that constant, so there is no slack",
            least=200,
        ),
        "evaluations": Criterion(
            claim="2N evaluations of f forward; 2N evaluations and 2N VJPs backward; num_steps says N",
            comparison="==",
            threshold=0.0,
            why="the cost that the method promises, counted",
            least=1396,
        ),
        "saved-bytes": Criterion(
            claim="what is kept between forward and backward does not grow with N",
            comparison="==",
            threshold=0.0,
            why="the reversible adjoint keeps the last states only; bytes are integers",
            least=13,
        ),
        "repeatable": Criterion(
            claim="two backward passes return the same bits, from one graph and from two",
            comparison="==",
            threshold=0.0,
            why=_EXACT,
            least=64,
        ),
        "linear": Criterion(
            claim="backward of zero is zero, and of 2^k w is 2^k times backward of w",
            comparison="==",
            threshold=0.0,
            why="multiplication by a power of two commutes with rounding",
            least=64,
        ),
        "cotangent-layout": Criterion(
            claim="expanded and transposed cotangents mean the same as contiguous ones",
            comparison="<=",
            threshold=RATIO_LIMIT,
            why="only the order of roundings may differ, and that is what R counts",
            least=64,
        ),
        "untouched": Criterion(
            claim="inputs, parameters, random state and grad mode are what they were",
            comparison="==",
            threshold=0.0,
            why="a solve has no business changing them",
            least=356,
        ),
        "samples": Criterion(
            claim="one sample's start changes no bit of another sample's state or gradient",
            comparison="==",
            threshold=0.0,
            why="the fixtures' samples do not interact, so neither may the solver make them",
            least=30,
        ),
        "random-replay": Criterion(
            claim="random numbers drawn inside f are the same ones in backward",
            comparison="==",
            threshold=0.0,
            why=_EXACT,
            least=32,
        ),
        "refusals": Criterion(
            claim="settings without an inverse or without meaning are refused",
            comparison="==",
            threshold=0.0,
            why="beta = 1 divides zero by zero in the inverse, and a number comes out",
            least=104,
        ),
        "errors-surface": Criterion(
            claim="an exception inside f reaches the caller, forward and backward; double backward is right or refused",
            comparison="==",
            threshold=0.0,
            why="a swallowed failure is a silent wrong gradient",
            least=39,
        ),
        "relative-to-unrolled": Criterion(
            claim="the reversible gradient is at most 3 times as wrong as the unrolled one of the same dtype",
            comparison="<=",
            threshold=3.0,
            why="A12, where the error model predicts that reversal costs at most 1.5 times the rounding (THEORY M1)",
            least=270,
        ),
        "reference-agreement": Criterion(
            claim="the reference's gradients agree with differences that share no differentiation code",
            comparison="<=",
            threshold=REFERENCE_SHARE,
            why="A0: a reference is wrong by at most 2^-10 of the rounding that it is used to see",
            least=64,
            reference=True,
        ),
        "oracle": Criterion(
            claim="the fixed point is the one that a routine finds which we did not write",
            comparison="<=",
            threshold=2.0**-26,
            why="half of float64's digits: the routine has its own tolerance, and another fixed point is far away",
            least=21,
            reference=True,
        ),
    }
)
