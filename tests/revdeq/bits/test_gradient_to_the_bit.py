"""With no option given the gradient of a narrow function is that of stored inputs to the bit, whatever the map."""

import itertools
from typing import Any

import pytest
import torch

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint
from revdeq._schedule import chebyshev_schedule


NARROW = [torch.float32, torch.bfloat16, torch.float16]
UNEVEN = ((0.3, 1.4), (1.7, 0.6), (0.5, 0.5), (0.9, 0.25))
FIXED = [
    (0.5, 3, "both"),
    (0.5, 40, "cancelling"),
    (0.8, 24, "component"),
    (0.95, 12, "imbalanced"),
    (0.1, 16, "both"),
    (1.5, 10, "both"),
]


@pytest.mark.parametrize("dtype", NARROW)
def test_fixed_steps_give_the_gradient_of_a_plain_loop(cell, dtype, zoo):
    for beta, num_steps, loss in FIXED:
        case, g = zoo.case(cell, num_steps)
        cotangent = zoo.cotangents(loss, g, case.z0)
        expected = zoo.stored(case, [(beta, beta)] * num_steps, cotangent, dtype)
        solution, got = zoo.reversed(case, Reversible(beta), cotangent, dtype, max_steps=num_steps)
        assert zoo.differing(got, expected) == [], (beta, num_steps)
        assert solution.health.verified


def test_segments_of_any_length_give_it_too(cell, zoo):
    for dtype, segment, beta in ((torch.float32, 2, 0.8), (torch.float32, 100, 0.5), (torch.float64, 5, 0.8)):
        case, g = zoo.case(cell, segment)
        cotangent = zoo.cotangents("both", g, case.z0)
        expected = zoo.stored(case, [(beta, beta)] * 11, cotangent, dtype)
        adjoint = ReversibleAdjoint(segment=segment)
        solution, got = zoo.reversed(case, Reversible(beta), cotangent, dtype, adjoint, max_steps=11)
        assert zoo.differing(got, expected) == [], (dtype, segment)
        assert solution.health.verified


def test_a_float64_function_has_the_gradient_of_a_plain_loop_too(cell, zoo):
    case, g = zoo.case(cell)
    for beta, loss in zip((0.1, 0.5, 0.8, 1.1), zoo.losses, strict=True):
        cotangent = zoo.cotangents(loss, g, case.z0)
        expected = zoo.stored(case, [(beta, beta)] * 9, cotangent, torch.float64)
        _, got = zoo.reversed(case, Reversible(beta), cotangent, torch.float64, max_steps=9)
        assert zoo.differing(got, expected) == [], beta


@pytest.mark.parametrize("betas", [chebyshev_schedule(20, 0.9), UNEVEN * 5], ids=["chebyshev", "uneven"])
def test_schedules_give_the_gradient_of_a_plain_loop(cell, betas, zoo):
    case, g = zoo.case(cell)
    cotangent = zoo.cotangents("both", g, case.z0)
    for dtype, segment in ((torch.float32, None), (torch.float32, 3), (torch.bfloat16, None)):
        expected = zoo.stored(case, betas, cotangent, dtype)
        adjoint = ReversibleAdjoint(segment=segment)
        _, got = zoo.reversed(case, Reversible(betas), cotangent, dtype, adjoint, max_steps=len(betas))
        assert zoo.differing(got, expected) == [], (dtype, segment)


TOLERANCE: dict[str, Any] = {"max_steps": 60, "rtol": 2e-2, "atol": 1e-3}
STOPPING: list[tuple[Any, dict[str, Any]]] = [
    (0.5, TOLERANCE),
    (0.8, TOLERANCE),
    ("adaptive", TOLERANCE),
    ("adaptive", {"max_steps": 20}),
    (chebyshev_schedule(60, 0.9), TOLERANCE),
]


@pytest.mark.parametrize(("beta", "stopping"), STOPPING, ids=["half", "paper", "adaptive", "fixed", "chebyshev"])
def test_samples_that_stop_by_themselves_have_the_gradient_of_stored_inputs(cell, beta, stopping, zoo):
    case, g = zoo.case(cell, 3)
    cotangent = zoo.cotangents("both", g, case.z0)
    solver = Reversible(beta)
    for dtype, segment in ((torch.float32, None), (torch.float32, 4), (torch.float16, None)):
        stored, expected = zoo.reversed(case, solver, cotangent, dtype, ReversibleAdjoint(segment=1), **stopping)
        adjoint = ReversibleAdjoint(segment=segment)
        solution, got = zoo.reversed(case, solver, cotangent, dtype, adjoint, **stopping)
        assert torch.equal(solution.num_steps, stored.num_steps)
        assert zoo.differing(got, expected) == [], (dtype, segment)
        assert solution.health.verified


def test_unrolling_gives_the_same_bits_where_f_uses_each_tensor_once(zoo):
    for cell, (beta, stopping) in itertools.product(zoo.used_once, ((0.5, TOLERANCE), (0.8, {"max_steps": 20}))):
        case, g = zoo.case(cell, 5)
        for loss in zoo.losses[:3]:
            cotangent = zoo.cotangents(loss, g, case.z0)
            unrolled = zoo.reversed(case, Reversible(beta), cotangent, torch.float32, UnrolledAdjoint(), **stopping)[1]
            got = zoo.reversed(case, Reversible(beta), cotangent, torch.float32, **stopping)[1]
            assert zoo.differing(got, unrolled) == [], (cell, loss)
