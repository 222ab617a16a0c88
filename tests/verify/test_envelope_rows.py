"""The envelope in the gate: the control lies on it, and what is narrower or stored does not."""

import pytest
import torch

from verify.checks import CRITERIA
from verify.gate import judge_row
from verify.planted.base import Honest
from verify.planted.precision import StatesNarrowed, StatesStored
from verify.planted.state import GradModeLeftOff, RandomStateAdvanced
from verify.sweep import run
from verify.tasks import measure_case
from verify.trial.reach import ENVELOPE, SETTINGS, ReachBench, envelope_cases


def measured_by(subject, cases=2):
    return [row for case in envelope_cases("cpu")[:cases] for row in measure_case(ReachBench(case, subject))]


def failing(subject, cases=2):
    return {row.check for row in measured_by(subject, cases) if judge_row(row, CRITERIA).passed is False}


def test_the_control_is_on_the_envelope():
    rows = measured_by(Honest())
    assert [row.check for row in rows] == ["envelope-safe", "envelope-near", "envelope-safe"]
    assert all(judge_row(row, CRITERIA).passed for row in rows)


@pytest.mark.parametrize(("fault", "killer"), [(StatesNarrowed, "envelope-safe"), (StatesStored, "envelope-near")])
def test_narrow_states_end_it_early_and_stored_ones_reach_beyond(fault, killer):
    assert failing(fault()) == {killer}


def test_a_subject_that_raises_fails_its_row():
    class Raises(Honest):
        def solve(self, function, z0, args, settings):
            raise ValueError("beta is not to my liking")

    rows = measured_by(Raises(), cases=1)
    assert [row.status for row in rows] == ["failed"]
    assert "not to my liking" in rows[0].reason


def test_what_a_subject_leaves_switched_or_advanced_is_put_back():
    random = torch.get_rng_state()
    for fault in (GradModeLeftOff, RandomStateAdvanced):
        measured_by(fault())
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), random)


def test_a_row_is_measured_again_by_its_case_id(tmp_path):
    case = SETTINGS[1].case("cpu")
    results = run(only=case.id, out=tmp_path)
    assert {row.problem for row in results.measurements} == {ENVELOPE}
    assert {row.check for row in results.measurements} == {"envelope-safe", "envelope-near"}
    assert all(case.id in row.replay for row in results.measurements)
