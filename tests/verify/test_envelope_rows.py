"""The envelope in the gate: the control lies on it, and what is narrower or stored does not."""

import pytest
import torch

from verify.checks.envelope import ENVELOPE, SETTINGS, envelope_case, measure_envelope
from verify.gate import judge_row
from verify.planted.base import Honest
from verify.planted.precision import StatesNarrowed, StatesStored
from verify.planted.state import GradModeLeftOff, RandomStateAdvanced
from verify.sweep import run


def failing(subject, cases=2):
    return {row.check for row in measure_envelope(subject, cases=cases) if judge_row(row).passed is False}


def test_the_control_is_on_the_envelope():
    rows = measure_envelope(Honest(), cases=2)
    assert [row.check for row in rows] == ["envelope-safe", "envelope-safe", "envelope-near"]
    assert all(judge_row(row).passed for row in rows)


@pytest.mark.parametrize(("fault", "killer"), [(StatesNarrowed, "envelope-safe"), (StatesStored, "envelope-near")])
def test_narrow_states_end_it_early_and_stored_ones_reach_beyond(fault, killer):
    assert failing(fault()) == {killer}


def test_a_subject_that_raises_fails_its_row():
    class Raises(Honest):
        def solve(self, function, z0, args, settings):
            raise ValueError("beta is not to my liking")

    rows = measure_envelope(Raises(), cases=1)
    assert [row.status for row in rows] == ["failed"]
    assert "not to my liking" in rows[0].reason


def test_what_a_subject_leaves_switched_or_advanced_is_put_back():
    random = torch.get_rng_state()
    for fault in (GradModeLeftOff, RandomStateAdvanced):
        measure_envelope(fault(), cases=2)
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), random)


def test_a_row_is_measured_again_by_its_case_id(tmp_path):
    case = envelope_case(*SETTINGS[1], "cpu")
    results = run(only=case.id, out=tmp_path)
    assert {row.problem for row in results.measurements} == {ENVELOPE}
    assert {row.check for row in results.measurements} == {"envelope-safe", "envelope-near"}
    assert all(case.id in row.replay for row in results.measurements)
