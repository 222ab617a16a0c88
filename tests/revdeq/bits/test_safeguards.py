"""Each safeguard of the reversible gradient is needed: without it the adversarial cases find wrong gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import revdeq.adjoint.anchored as anchored
import revdeq.adjoint.reversible as reversible
import revdeq.adjoint.stored as stored
import revdeq.function.call as call
from revdeq import GradientError, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq._iterate import Masks
from revdeq.adjoint.pullback import Pullback
from revdeq.adjoint.segments import Segments
from revdeq.function import Replay
from revdeq.function.surroundings import Surroundings


FIXED: dict[str, Any] = {"max_steps": 20}
FINE: dict[str, Any] = {"max_steps": 60, "rtol": 1e-7, "atol": 1e-7}
TOLERANCE: dict[str, Any] = {"max_steps": 60, "rtol": 1e-3, "atol": 1e-3}


def undone(zoo: Any) -> Iterator[str]:
    """Segments that cannot come back to the bit: long ones, float64 ones, states that cancel to noise."""
    settings = [
        ("cancelling", torch.float32, 0.8, ReversibleAdjoint(), FIXED),
        ("kinks", torch.float32, 0.95, ReversibleAdjoint(segment=20), FIXED),
        ("relu", torch.float64, 0.8, ReversibleAdjoint(segment=20), FIXED),
        ("large_sample", torch.float64, 0.8, ReversibleAdjoint(segment=60), FINE),
    ]
    for cell, dtype, beta, adjoint, stopping in settings:
        case, g = zoo.case(cell, 1)
        cotangent = zoo.cotangents("both", g, case.z0)
        try:
            solution, got = zoo.reversed(case, Reversible(beta), cotangent, dtype, adjoint, **stopping)
        except GradientError:
            yield f"{cell} is refused"
            continue
        expected = zoo.reversed(case, Reversible(beta), cotangent, dtype, ReversibleAdjoint(segment=1), **stopping)[1]
        if zoo.differing(got, expected):
            yield cell
        elif not solution.health.repeated_segments:
            yield f"{cell} is easy"


def planned(zoo: Any) -> Iterator[str]:
    """The plan: with the default no segment of a smooth map has to be taken again."""
    for cell in ("dense", "convolution", "attention", "first_steps"):
        for beta in (0.5, 0.8, 1.25):
            case, g = zoo.case(cell, 2)
            cotangent = zoo.cotangents("both", g, case.z0)
            solution, _ = zoo.reversed(case, Reversible(beta), cotangent, torch.float32, max_steps=40)
            if solution.health.repeated_segments:
                yield f"{cell} at beta {beta}"


def stopped(zoo: Any) -> Iterator[str]:
    """Samples that take unequal numbers of steps, against autograd through all of them."""
    case, g = zoo.case("large_sample", 3)
    cotangent = zoo.cotangents("both", g, case.z0)
    for segment in (1, 3, None):
        adjoint = ReversibleAdjoint(segment=segment)
        try:
            got = zoo.reversed(case, Reversible(0.8), cotangent, torch.float32, adjoint, **TOLERANCE)[1]
        except GradientError:
            yield f"segment {segment} is refused"
            continue
        want = zoo.reversed(case, Reversible(0.8), cotangent, torch.float32, UnrolledAdjoint(), **TOLERANCE)[1]
        if not all(torch.allclose(g, w, rtol=1e-5, atol=1e-6) for g, w in zip(got, want, strict=True)):
            yield f"segment {segment}"


def changed(_: Any) -> Iterator[str]:
    """A function that something moves between the passes."""
    for segment in (1, 4, None):
        weight, gain = (0.1 * torch.ones(4, 4)).requires_grad_(), [torch.tensor(1.0)]
        adjoint = ReversibleAdjoint(segment=segment)
        found = solve(
            lambda z, _, weight=weight, gain=gain: torch.tanh(gain[0] * (z @ weight) + 0.5),
            torch.ones(2, 4),
            solver=Reversible(0.8),
            adjoint=adjoint,
            max_steps=30,
        )
        gain[0] = torch.tensor(1.5)
        try:
            found.z1.sum().backward()
        except GradientError:
            continue
        yield f"segment {segment}"


def updating(_: Any) -> Iterator[str]:
    """Dropout, and a buffer that f reads and updates, against a map with both fixed."""
    torch.manual_seed(0)
    state, weight = torch.get_rng_state(), (0.1 * torch.ones(4, 4)).requires_grad_()
    mask = nn.functional.dropout(torch.ones(2, 4), 0.5)
    after = 1.25 * torch.ones(4)
    torch.set_rng_state(state)
    buffer = torch.ones(4)

    def f(z: torch.Tensor, _: Any) -> torch.Tensor:
        buffer.mul_(1.25)
        return torch.tanh(nn.functional.dropout(z, 0.5) @ weight + 0.3 * buffer.clone())

    def fixed(z: torch.Tensor, _: Any) -> torch.Tensor:
        return torch.tanh((z * mask) @ weight + 0.3 * after)

    results: list[Any] = []
    try:
        for function, adjoint in ((f, ReversibleAdjoint()), (fixed, UnrolledAdjoint())):
            z1 = solve(function, torch.ones(2, 4), solver=Reversible(0.8), adjoint=adjoint, max_steps=20).z1
            results.append(torch.autograd.grad(z1.sum(), weight)[0])
    except GradientError:
        yield "refused"
        return
    if not torch.equal(results[0], results[1]):
        yield "wrong"


def gathered(_: Any) -> Iterator[str]:
    """A loss that f collects, and a parameter that only the loss of a later branch reads."""
    weight, found = (0.1 * torch.ones(4, 4)).requires_grad_(), list[torch.Tensor]()

    def f(z: torch.Tensor, _: Any, step: int) -> torch.Tensor:
        value = torch.tanh(z @ weight + 0.5)
        if step == 2:
            found.append(value.square().mean())
        return value

    try:
        adjoint = ReversibleAdjoint()
        solve(f, torch.ones(2, 4), solver=Reversible(0.8), adjoint=adjoint, max_steps=4, with_step=True)
        torch.autograd.grad(torch.stack(found).sum(), weight)
    except GradientError:
        return
    yield "a loss was lost"


def rescaled(_: Any) -> Iterator[str]:
    """A function whose derivative something moves between the passes, and whose values stay."""
    for segment in (1, 4, None):
        weight, scale = (0.1 * torch.ones(4, 4)).requires_grad_(), [1.0]
        found = solve(
            lambda z, _, weight=weight, scale=scale: torch.tanh((z.detach() + scale[0] * (z - z.detach())) @ weight),
            torch.ones(2, 4),
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(segment=segment),
            max_steps=30,
        )
        scale[0] = 0.5
        try:
            found.z1.sum().backward()
        except GradientError:
            continue
        yield f"segment {segment}"


def nothing(*_: Any, **__: Any) -> None:
    return None


def constant(_: Any) -> torch.Tensor:
    return torch.zeros((), dtype=torch.int64)


def one_segment(*_: Any, **__: Any) -> Segments:
    return Segments((0,))


Search = Callable[[Any], Iterator[str]]
# (what is taken away, where, what it is there, what stands in its place, the search that finds it)
PLANTED: list[tuple[str, Any, str, Any, Search]] = [
    ("prints of inputs", anchored, "fingerprint", constant, undone),
    ("prints of values", stored, "fingerprint", constant, changed),
    ("prints between segments", anchored, "fingerprint", constant, changed),
    ("forgetting what was undone in vain", Pullback, "return_to", nothing, undone),
    ("the plan of segments", reversible, "planned_segments", one_segment, planned),
    ("who took which step", Masks, "of", lambda self, n: [None] * n, stopped),
    ("putting buffers and generators back", Surroundings, "restore", nothing, updating),
    ("watching what escapes", call, "refuse_escaped", nothing, gathered),
    ("the graphs of evaluations", Replay, "refuse_other_derivative", nothing, rescaled),
]


@pytest.mark.parametrize(
    "search", [undone, planned, stopped, changed, updating, gathered, rescaled], ids=lambda s: s.__name__
)
def test_nothing_is_found_with_the_safeguards(search: Search, zoo):
    assert list(search(zoo)) == []


@pytest.mark.parametrize(("name", "owner", "attribute", "instead", "search"), PLANTED, ids=[p[0] for p in PLANTED])
def test_without_a_safeguard_its_search_finds_something(
    name, owner, attribute, instead, search: Search, zoo, monkeypatch: pytest.MonkeyPatch
):
    assert callable(getattr(owner, attribute)), name
    monkeypatch.setattr(owner, attribute, instead)
    assert list(search(zoo)) != []
