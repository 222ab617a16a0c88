"""Bitwise reversal in the gate: each claim passes the control and kills the fault that it is there for."""

import pytest
import torch

from verify.case import BITWISE, Case
from verify.checks import CRITERIA, Trial, measure
from verify.gate import judge_row
from verify.planted import bitwise
from verify.planted.base import Honest
from verify.problems import get_problem
from verify.subject import RevdeqSubject


WIDE = Case("dense-tanh", 0.75, 16, solver=BITWISE)
CHECKED = ("bitwise-states", "bitwise-cotangents", "tape-bytes", "bitwise-refusals")
KILLERS = {
    bitwise.NaiveReversal: "bitwise-states",
    bitwise.RemaindersDropped: "bitwise-states",
    bitwise.RemaindersInBytes: "tape-bytes",
    bitwise.RoundingDifferentiated: "bitwise-cotangents",
    bitwise.OverflowWraps: "bitwise-refusals",
    bitwise.ReplayNotCompared: "bitwise-refusals",
    bitwise.EveryBetaTaken: "bitwise-refusals",
}


def failing(subject, check, case=WIDE):
    rows = measure(check, Trial(case, subject, get_problem(case.problem)))
    assert rows
    return [row.leaf for row in rows if judge_row(row, CRITERIA).passed is False]


@pytest.mark.parametrize("subject", [Honest(), RevdeqSubject()], ids=["control", "product"])
@pytest.mark.parametrize("check", CHECKED)
def test_right_subjects_pass(subject, check):
    assert failing(subject, check) == []


@pytest.mark.parametrize("fault", KILLERS, ids=lambda fault: fault.name)
def test_a_fault_is_killed_by_the_claim_that_is_about_it(fault):
    assert failing(fault(), KILLERS[fault])


def test_a_bitwise_case_has_an_id_of_its_own():
    case = Case("kepler", 0.8, 4, "float16", "float64", solver=BITWISE)
    assert case.id == "kepler/reversible-bitwise/beta=0.8/N=4/float16+float64/cpu"
    assert Case.parse(case.id) == case
    assert case.arithmetic == "bitwise"
    assert case.torch_dtype is torch.float16


@pytest.mark.parametrize(
    ("beta", "dtype", "expected"),
    [(0.5, "float64", 2.0**-51), (0.5, "float32", 2.0**-32), (0.8, "float32", 2.0**-51), (1.25, "bfloat16", 2.0**-16)],
)
def test_integer_states_are_as_fine_as_said(beta, dtype, expected):
    assert Case("kepler", beta, 4, dtype, solver=BITWISE).state_unit_roundoff == expected


def test_reversal_of_integers_is_judged_by_what_stored_states_lose():
    trial = Trial(WIDE, Honest(), get_problem("dense-tanh"))
    assert trial.scale("reversible") == trial.scale("unrolled")


@pytest.mark.parametrize("leaf", ["float64", "float32"])
def test_states_that_floating_reversal_loses_come_back_in_bitwise_arithmetic(leaf):
    # The control of the claim: without remainders the same case does not come back.
    case = Case("dense-tanh", 0.8, 32, leaf, "float64", solver=BITWISE)
    assert failing(RevdeqSubject(), "bitwise-states", case) == []
    assert failing(bitwise.NaiveReversal(), "bitwise-states", case)
