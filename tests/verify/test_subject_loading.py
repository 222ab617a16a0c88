"""A subject is loaded by name, and what is none is refused in one sentence."""

import sys
import types

import pytest
import torch

from verify.planted.base import Honest
from verify.subject import RevdeqSubject, Settings, Subject, SubjectError, load_subject


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("someones_solver")
    monkeypatch.setitem(sys.modules, "someones_solver", made)
    return made


def test_own_subject_is_called_revdeq():
    subject = load_subject("revdeq")
    assert isinstance(subject, Subject)
    assert subject.name == "revdeq"


def test_attribute_subject_is_the_default(module):
    module.subject = Honest()
    assert load_subject("someones_solver") is module.subject


def test_named_attribute_may_be_a_factory(module):
    module.make = Honest
    assert isinstance(load_subject("someones_solver:make"), Honest)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_at_all", "cannot be imported"),
        ("someones_solver", "has no 'subject'"),
        ("someones_solver:number", "without name, solve and reconstruct"),
    ],
)
def test_what_is_no_subject_is_refused(module, name, message):
    module.number = 3
    with pytest.raises(SubjectError, match=message):
        load_subject(name)


@pytest.mark.parametrize("subject", [RevdeqSubject(), Honest()])
def test_reconstruction_begins_at_the_result_and_ends_at_the_start(subject):
    z0 = torch.tensor([[0.25, -0.5]], dtype=torch.float64)
    settings = Settings(beta=0.5, num_steps=3, adjoint="reversible", state_dtype=torch.float64)

    def function(z, args):
        return 0.5 * torch.cos(z) + args

    args = torch.tensor(0.125, dtype=torch.float64)
    rebuilt = subject.reconstruct(function, z0, args, settings)
    solved = subject.solve(function, z0, args, settings)
    assert len(rebuilt) == 4
    assert torch.equal(rebuilt[0][0], solved.y1)
    assert torch.equal(rebuilt[0][1], solved.z1)
    for state in rebuilt[-1]:
        assert torch.allclose(state, z0, rtol=0, atol=1e-14)
