"""Certificates of a hundred cells that people have: how many get an answer, and how many all of their claims.

At night all of them, with blocks of the libraries that are installed; the absent libraries are named in the output.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from library_cells import library_cells
from torch_cells import Cell, torch_cells
from verify.certificate import Answer, certify
from verify.reference.graph import TracingError, UnsupportedOperationError


F64 = torch.float64


def answers_of(make: Callable[[], Cell]) -> dict[str, Answer] | str:
    """The answer to every claim, or the sentence that refuses the cell."""
    try:
        found = certify(make(), num_steps=2, digits=15, dtypes=(F64,))
    except (TracingError, UnsupportedOperationError) as error:
        return str(error)
    return {finding.claim: finding.answer for finding in found.findings}


DAILY = (
    "mlp of RReLU",
    "log gamma",
    "inverse error function",
    "grid sample",
    "segments, max",
    "messages, amax",
    "LSTM",
)


@pytest.mark.parametrize("name", DAILY)
def test_every_claim_of_the_cell_is_certified(name: str) -> None:
    answers = answers_of(torch_cells()[name])
    assert isinstance(answers, dict), answers
    assert set(answers.values()) == {Answer.CERTIFIED}


def test_certificate_of_twenty_four_components_is_small() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 24, dtype=F64)
    source = (lambda z, x: torch.tanh(0.5 * layer(z) + x)), torch.zeros(1, 24, dtype=F64), torch.randn(1, 24, dtype=F64)
    found = certify(source)
    assert {finding.answer for finding in found.findings} == {Answer.CERTIFIED}
    assert len(json.dumps(found.to_json())) < 300_000


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # of the libraries, on import
def test_nearly_all_of_a_hundred_cells_get_an_answer_and_most_all_their_claims() -> None:
    own = torch_cells()
    others, absent = library_cells()
    assert len(own) >= 100
    print(f"not installed, so not tried: {', '.join(absent) or 'none'}")
    outcomes = {name: answers_of(make) for name, make in {**own, **others}.items()}
    answered = {name: found for name, found in outcomes.items() if isinstance(found, dict)}
    decided = [name for name, found in answered.items() if Answer.UNDECIDED not in found.values()]
    refused = {name: found for name, found in outcomes.items() if isinstance(found, str)}
    assert len(answered) >= 0.95 * len(outcomes), refused
    assert len(decided) >= 0.85 * len(outcomes), [name for name in answered if name not in decided]
    # torch's backward is right for torch's own layers; PyTorch Geometric detaches parts of its softmax.
    assert not [name for name in own if name in answered and _refuted_torch(answered[name])]


def _refuted_torch(answers: dict[str, Answer]) -> bool:
    return any(claim.endswith("confirmed") and answer is Answer.REFUTED for claim, answer in answers.items())
