"""Stopping: fixed steps or tolerances, each sample by itself, and a sample that breaks harms no other."""

import math
from typing import Any

import pytest
import torch

from revdeq import (
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    Relaxed,
    Result,
    Reversible,
    ReversibleAdjoint,
    SolveError,
    UnrolledAdjoint,
    solve,
)


# Samples of unequal difficulty: z = rate * tanh(z) + x, one rate a sample.
RATES = torch.tensor([[0.05], [0.8], [0.4], [-0.3]], dtype=torch.float64)


def function(z: torch.Tensor, args: dict[str, torch.Tensor]) -> torch.Tensor:
    return args["rate"] * torch.tanh(z * args["weight"]) + args["x"]


def arguments() -> dict[str, torch.Tensor]:
    return {
        "rate": RATES.clone(),
        "weight": torch.tensor([0.9, 1.0, 0.8], dtype=torch.float64, requires_grad=True),
        "x": torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3).clone().requires_grad_(),
    }


def run(args: dict[str, torch.Tensor], adjoint: Any, **options: Any) -> Any:
    settings: dict[str, Any] = {"solver": Reversible(0.6), "max_steps": 300, "rtol": 1e-3, "atol": 1e-3, "throw": False}
    z0 = options.pop("z0", torch.zeros_like(args["x"]))
    return solve(options.pop("function", function), z0, args, adjoint=adjoint, **{**settings, **options})


def test_batch_is_the_loop_over_its_samples_to_the_bit():
    args = arguments()
    whole = run(args, ReversibleAdjoint())
    grads = torch.autograd.grad(whole.z1.sum() + whole.y1.square().sum(), (args["x"], args["weight"]))
    weight_sum = torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        one = {"rate": args["rate"][i : i + 1], "weight": args["weight"], "x": args["x"][i : i + 1]}
        alone = run(one, ReversibleAdjoint())
        assert torch.equal(alone.z1, whole.z1[i : i + 1])
        assert torch.equal(alone.y1, whole.y1[i : i + 1])
        assert int(alone.num_steps) == int(whole.num_steps[i])
        assert torch.equal(alone.residual, whole.residual[i : i + 1])
        alone_x, alone_weight = torch.autograd.grad(
            alone.z1.sum() + alone.y1.square().sum(), (one["x"], args["weight"])
        )
        assert torch.equal(alone_x, grads[0][i : i + 1])
        weight_sum += alone_weight
    torch.testing.assert_close(weight_sum, grads[1], rtol=1e-14, atol=1e-15)


def test_samples_stop_at_their_own_steps_and_meet_the_tolerance():
    found = run(arguments(), ReversibleAdjoint())
    steps = found.num_steps.tolist()
    assert len(set(steps)) >= 3
    assert steps[1] == max(steps)
    assert found.result is Result.CONVERGED
    args = arguments()
    value = function(found.z1, args)
    exact = torch.linalg.vector_norm(value - found.z1, dim=1)
    torch.testing.assert_close(found.residual, exact.detach(), rtol=1e-12, atol=1e-16)
    bound = 1e-3 + 1e-3 * torch.linalg.vector_norm(value, dim=1)
    assert bool((found.residual <= bound).all())


def test_each_sample_stops_at_the_first_state_that_meets_the_tolerance():
    args = arguments()
    found = run(args, ReversibleAdjoint())
    for i in range(4):
        steps = int(found.num_steps[i])
        before = run(args, ReversibleAdjoint(), max_steps=steps - 1, rtol=None, atol=None) if steps else None
        if before is None:
            continue
        value = function(before.z1, args)[i]
        residual = torch.linalg.vector_norm(value - before.z1[i])
        assert float(residual.detach()) > 1e-3 + 1e-3 * float(torch.linalg.vector_norm(value).detach())


@pytest.mark.parametrize(
    "adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=3), CheckpointedAdjoint()], ids=repr
)
def test_replay_honours_the_steps_of_each_sample(adjoint: Any):
    grads = []
    for chosen in (adjoint, UnrolledAdjoint()):
        args = arguments()
        found = run(args, chosen)
        cotangent = torch.linspace(-1.0, 2.0, 12, dtype=torch.float64).reshape(4, 3)
        grads.append(torch.autograd.grad([found.z1, found.y1], [args["x"], args["weight"]], [cotangent, cotangent**2]))
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-15)


def coupled(z: torch.Tensor, args: dict[str, torch.Tensor]) -> torch.Tensor:
    """Couple the samples by their mean, as batch normalisation does."""
    return function(z, args) + 0.2 * (z.mean(dim=0) - z)


@pytest.mark.parametrize(
    "adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=3), CheckpointedAdjoint()], ids=repr
)
def test_function_that_couples_samples_is_differentiated_exactly_under_its_steps(adjoint: Any):
    grads = []
    for chosen in (adjoint, UnrolledAdjoint()):
        args = arguments()
        z0 = torch.linspace(1.0, 2.0, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
        found = run(args, chosen, function=coupled, z0=z0)
        assert len(set(found.num_steps.tolist())) > 1
        cotangent = torch.linspace(-1.0, 2.0, 12, dtype=torch.float64).reshape(4, 3)
        grads.append(
            torch.autograd.grad([found.z1, found.y1], [z0, args["x"], args["weight"]], [cotangent, cotangent**2])
        )
        if found.health is not None:
            assert found.health.replay_error == 0.0
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-15)


def test_start_that_is_the_fixed_point_takes_no_step():
    args = arguments()
    fixed = run(args, ReversibleAdjoint(), rtol=0.0, atol=1e-13).z1.detach()
    found = run(args, ReversibleAdjoint(), z0=fixed)
    assert found.num_steps.tolist() == [0] * 4
    assert found.result is Result.CONVERGED
    assert torch.equal(found.z1, fixed)
    found.z1.sum().backward()
    assert args["x"].grad is None or not bool(args["x"].grad.any())


def test_no_steps_allowed_judges_the_start():
    args = arguments()
    found = run(args, ReversibleAdjoint(), max_steps=0)
    assert found.num_steps.tolist() == [0] * 4
    assert found.result is Result.MAX_STEPS_REACHED
    assert torch.equal(found.z1, torch.zeros_like(found.z1))


def test_missed_tolerance_is_a_result_with_advice_or_raises():
    found = run(arguments(), ReversibleAdjoint(), max_steps=9)
    assert found.result is Result.MAX_STEPS_REACHED
    assert [Result.from_code(code).name for code in found.sample_results.tolist()] == [
        "CONVERGED",
        "MAX_STEPS_REACHED",
        "CONVERGED",
        "CONVERGED",
    ]
    with pytest.raises(SolveError, match=r"residual of sample 1 is .* after 9 steps.*give more steps") as caught:
        run(arguments(), ReversibleAdjoint(), max_steps=9, throw=True)
    assert caught.value.result is Result.MAX_STEPS_REACHED


def test_expanding_function_runs_into_its_limit_and_says_so():
    args = {**arguments(), "rate": torch.full((4, 1), 30.0, dtype=torch.float64)}
    expanding = lambda z, a: a["rate"] * z + a["x"]  # noqa: E731
    with pytest.raises(SolveError, match="above atol"):
        run(args, ReversibleAdjoint(), function=expanding, max_steps=3, throw=True)
    with pytest.raises(SolveError, match=r"not finite in sample .* beta < 2 / \(1 \+ contraction constant\)"):
        run(args, ReversibleAdjoint(), function=expanding, max_steps=300, throw=True)
    with pytest.raises(SolveError, match="not finite"):
        run(args, ReversibleAdjoint(), function=expanding, max_steps=300, rtol=None, atol=None, throw=True)


@pytest.mark.parametrize("scale", [1e-250, 1e-160, 1e-20, 1e20, 1e160, 1e250])
def test_relative_tolerance_does_not_depend_on_the_scale(scale: float):
    def count(scale: float) -> list[int]:
        x = scale * torch.linspace(1.0, 2.0, 6, dtype=torch.float64).reshape(2, 3)
        linear = lambda z, a: torch.tensor([[0.5], [0.8]], dtype=torch.float64) * z + a  # noqa: E731
        found = solve(
            linear,
            torch.zeros_like(x),
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=200,
            rtol=1e-6,
            atol=0.0,
        )
        return found.num_steps.tolist()

    assert count(scale) == count(1.0)


# --- samples that break ---------------------------------------------------------------------------------------------


def breaking(kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a map and args with which sample 2 is not finite, and the others are."""
    args = arguments()
    if kind == "overflows":
        args["rate"] = torch.tensor([[0.05], [0.8], [1e60], [-0.3]], dtype=torch.float64)
        return lambda z, a: a["rate"] * z * a["weight"] + a["x"], args
    if kind == "turns NaN":
        sharp = torch.tensor([[0.0], [0.0], [100.0], [0.0]], dtype=torch.float64)
        return lambda z, a: function(z, a) * torch.sqrt(1.0 - sharp * z.square()), args
    with torch.no_grad():
        args["x"][2] = math.nan
    if kind == "NaN in its input":
        return function, args
    assert kind == "NaN in its slope"
    return lambda z, a: function(z, a) + 0.0 * torch.tanh(a["weight"] * a["x"]), args


def without(args: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[int]]:
    kept = [0, 1, 3]
    return {
        "rate": args["rate"][kept].clone(),
        "weight": args["weight"].detach().clone().requires_grad_(),
        "x": args["x"].detach()[kept].clone().requires_grad_(),
    }, kept


def others(kind: str) -> Any:
    return (lambda z, a: a["rate"] * z * a["weight"] + a["x"]) if kind == "overflows" else function


TOLERANCES: list[dict[str, Any]] = [{"rtol": None, "atol": None, "max_steps": 8}, {"max_steps": 60}]


@pytest.mark.parametrize("options", TOLERANCES, ids=["fixed", "tolerance"])
@pytest.mark.parametrize("kind", ["overflows", "turns NaN", "NaN in its input"])
def test_sample_that_breaks_harms_no_value_and_no_gradient(kind: str, options: dict[str, Any]):
    broken, args = breaking(kind)
    found = run(args, ReversibleAdjoint(), function=broken, **options)
    alone, kept = without(args)
    want = run(alone, ReversibleAdjoint(), function=others(kind), **options)
    assert Result.from_code(int(found.sample_results[2])) is Result.NONFINITE
    assert not bool(torch.isfinite(found.z1[2]).all())
    assert torch.equal(found.sample_results[kept], want.sample_results)
    assert torch.equal(found.num_steps[kept], want.num_steps)
    assert torch.equal(found.z1[kept], want.z1)
    assert torch.equal(found.y1[kept], want.y1)
    got = torch.autograd.grad(found.z1[kept].square().sum(), (args["x"], args["weight"]))
    expected = torch.autograd.grad(want.z1.square().sum(), (alone["x"], alone["weight"]))
    torch.testing.assert_close(got[0][kept], expected[0], rtol=1e-14, atol=1e-15)
    assert not bool(got[0][2].any())
    torch.testing.assert_close(got[1], expected[1], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("options", TOLERANCES, ids=["fixed", "tolerance"])
def test_sample_whose_input_is_not_finite_harms_no_value_and_its_gradient_raises(options: dict[str, Any]):
    broken, args = breaking("NaN in its slope")
    found = run(args, ReversibleAdjoint(), function=broken, **options)
    alone, kept = without(args)
    want = run(alone, ReversibleAdjoint(), **options)
    assert torch.equal(found.z1[kept], want.z1)
    assert found.result is Result.NONFINITE
    with pytest.raises(GradientError, match=r"not finite in a sample even at its start.* leave that sample .* out"):
        found.z1[kept].sum().backward()


@pytest.mark.parametrize("options", TOLERANCES, ids=["fixed", "tolerance"])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ImplicitAdjoint()], ids=repr)
def test_loss_that_depends_on_a_broken_sample_raises(adjoint: Any, options: dict[str, Any]):
    broken, args = breaking("turns NaN")
    found = run(args, adjoint, function=broken, **options)
    with pytest.raises(GradientError):
        found.z1.sum().backward()
    if isinstance(adjoint, ReversibleAdjoint):
        with pytest.raises(GradientError, match="sample 2 is not finite, or left its range"):
            run(args, adjoint, function=broken, **options).z1.sum().backward()


def test_implicit_gradient_of_the_others_survives_a_broken_sample():
    broken, args = breaking("turns NaN")
    found = run(args, ImplicitAdjoint(), function=broken, rtol=1e-10, atol=1e-10)
    alone, kept = without(args)
    want = run(alone, ImplicitAdjoint(), rtol=1e-10, atol=1e-10)
    got = torch.autograd.grad(found.z1[kept].sum(), args["weight"])[0]
    torch.testing.assert_close(got, torch.autograd.grad(want.z1.sum(), alone["weight"])[0], rtol=1e-9, atol=1e-11)


def test_broken_sample_raises_by_default_and_is_named():
    broken, args = breaking("turns NaN")
    for options in TOLERANCES:
        with pytest.raises(SolveError, match="not finite in sample 2 after") as caught:
            run(args, ReversibleAdjoint(), function=broken, throw=True, **options)
        assert caught.value.result is Result.NONFINITE


@pytest.mark.parametrize("first", [1, 7])
def test_function_that_turns_nan_in_all_samples_is_reported(first: int):
    calls: list[int] = []

    def turning(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 0.5 * z + a + (math.nan if len(calls) >= first else 0.0)

    x = torch.ones(2, 3)
    every: list[dict[str, Any]] = [{"max_steps": 6}, {"max_steps": 6, "rtol": 0.0, "atol": 1e-30}]
    for options in every:
        calls.clear()
        found = solve(turning, x, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), throw=False, **options)
        assert found.result is Result.NONFINITE


def test_state_that_its_narrow_dtype_cannot_hold_is_reported():
    x = torch.full((2, 3), 6e4, dtype=torch.float16)
    found = solve(lambda z, a: a, x, x, solver=Reversible(1.5), adjoint=ReversibleAdjoint(), max_steps=1, throw=False)
    assert found.result is Result.STEPS_COMPLETED
    found = solve(lambda z, a: a, -x, x, solver=Reversible(1.5), adjoint=ReversibleAdjoint(), max_steps=1, throw=False)
    assert not bool(torch.isfinite(found.z1).all())
    assert found.result is Result.NONFINITE


# --- shapes of a batch ----------------------------------------------------------------------------------------------


def test_vector_is_one_sample():
    x = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64).requires_grad_()
    found = solve(
        lambda z, a: 0.5 * torch.tanh(z) + a,
        torch.zeros_like(x),
        x,
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        max_steps=50,
        rtol=1e-8,
        atol=1e-8,
    )
    assert found.num_steps.shape == found.residual.shape == found.sample_results.shape == ()
    found.z1.sum().backward()


def test_leaves_that_disagree_in_the_first_dimension_are_one_sample():
    z0 = {"a": torch.zeros(2, 3), "b": torch.zeros(4, 3)}
    found = solve(
        lambda z, a: {"a": 0.5 * z["a"] + 1.0, "b": 0.5 * z["b"]},
        z0,
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        max_steps=60,
        rtol=1e-5,
        atol=1e-5,
    )
    assert found.num_steps.shape == ()


@pytest.mark.parametrize("options", TOLERANCES, ids=["fixed", "tolerance"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_batch_works(shape: tuple[int, ...], options: dict[str, Any]):
    x = torch.zeros(shape, requires_grad=True)
    weight = torch.ones((), requires_grad=True)
    settings: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5, **options}
    found = solve(
        lambda z, a: 0.5 * torch.tanh(z) * a[1] + a[0],
        torch.zeros(shape),
        (x, weight),
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        **settings,
    )
    assert found.z1.shape == shape
    assert found.result.succeeded
    found.z1.sum().backward()
    assert weight.grad is None or float(weight.grad) == 0.0


@pytest.mark.parametrize("options", TOLERANCES, ids=["fixed", "tolerance"])
def test_0d_state_works(agree: Any, options: dict[str, Any]):
    z0 = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    agree(lambda z, a: 0.5 * torch.sin(z) + a, z0, x, (z0, x), **{"rtol": 1e-5, "atol": 1e-5, **options})


@pytest.mark.parametrize("layout", ["transposed", "expanded", "strided", "channels last"])
def test_state_of_any_layout_works(agree: Any, layout: str):
    base = torch.randn(4, 6, dtype=torch.float64)
    states = {
        "transposed": base.T,
        "expanded": base[:1].expand(4, 6),
        "strided": base[::2, ::3],
        "channels last": torch.randn(2, 3, 2, 2, dtype=torch.float64).to(memory_format=torch.channels_last),
    }
    z0 = states[layout].requires_grad_() if layout != "expanded" else states[layout]
    x = torch.randn(z0.shape, dtype=torch.float64, requires_grad=True)
    wanted = (z0, x) if z0.requires_grad else (x,)
    agree(lambda z, a: 0.5 * torch.tanh(z) + a, z0, x, wanted)


def test_fixed_steps_and_other_solvers_report_per_sample_too():
    found = run(arguments(), UnrolledAdjoint(), solver=Relaxed(0.9), rtol=None, atol=None, max_steps=4)
    assert found.num_steps.tolist() == [4] * 4
    assert found.num_steps.dtype == torch.int64
    assert found.residual.shape == (4,)
    assert found.result is Result.STEPS_COMPLETED
    assert found.y1 is None
