"""The id of a case can be read back, and what is no id is refused with the form of one."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from verify.case import DTYPES, Case, CaseError


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    problem=st.sampled_from(["kepler", "affine-real", "conv-group-norm"]),
    beta=st.floats(0.01, 1.99),
    steps=st.integers(0, 10_000),
    dtype=st.sampled_from(list(DTYPES)),
    state=st.sampled_from(list(DTYPES)),
)
def test_id_round_trips(problem, beta, steps, dtype, state):
    case = Case(problem, beta, steps, dtype, state)
    assert Case.parse(case.id) == case


def test_id_has_the_documented_form():
    assert Case("tanh", 0.5, 4, "float32", "float32").id == "tanh/reversible/beta=0.5/N=4/float32/cpu"
    assert Case("tanh", 0.5, 4, "float32", "float64").id == "tanh/reversible/beta=0.5/N=4/float32+float64/cpu"


@pytest.mark.parametrize(
    "text",
    ["", "tanh", "tanh/reversible/beta=x/N=4/float32/cpu", "tanh/reversible/beta=0.5/N=4/float8/cpu", "a/b/c/d/e/f"],
)
def test_what_is_no_id_is_refused_with_an_example(text):
    with pytest.raises(CaseError, match="copy an id from a results file, such as tanh/"):
        Case.parse(text)


def test_unit_roundoffs_are_half_an_eps():
    case = Case("tanh", 0.5, 4, "bfloat16", "float64")
    assert (case.unit_roundoff, case.state_unit_roundoff) == (2.0**-8, 2.0**-53)
    assert case.accumulate_roundoff == 2.0**-24
    assert (case.torch_dtype, case.torch_state_dtype) == (torch.bfloat16, torch.float64)
