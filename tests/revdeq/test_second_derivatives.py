"""Derivatives of reversible gradients: equal to those of the recorded loop in every setting, or refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from revdeq import GradientError, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Case = tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]


def drawn(*shape: int, size: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.randn(*shape, dtype=torch.float64) * size).to(dtype).requires_grad_()


def cell(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
    return torch.tanh(z @ args[0] + args[1])


def dense(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return drawn(3, 4, dtype=dtype), drawn(4, 4, size=0.4, dtype=dtype), drawn(3, 4, dtype=dtype)


def penalised(
    adjoint: Any,
    function: Callable[..., Any],
    leaves: tuple[Tensor, ...],
    captured: tuple[Tensor, ...] = (),
    **how: Any,
) -> list[Tensor]:
    """Return the gradients of all leaves of a loss that holds first gradients of everything that a solve returns."""
    torch.manual_seed(5)
    settings: dict[str, Any] = {"solver": Reversible(0.8), "max_steps": 7, "throw": False, **how}
    if settings.pop("continued", False):
        settings["y0"] = leaves[0].cos()
    s: Any = solve(function, leaves[0], leaves[1:], adjoint=adjoint, **settings)
    results = [s.z1, s.y1, *([s.aux] if s.aux is not None else []), *s.saved]
    loss = torch.stack([(i + 1) * r.double().sin().sum() for i, r in enumerate(results)]).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    again = torch.stack([g.double().square().sum() for g in first]).sum() + results[0].double().sum()
    return list(torch.autograd.grad(again, leaves))


def agree(function: Callable[..., Any], leaves: tuple[Tensor, ...], **how: Any) -> None:
    """Compare with the recorded loop, to a few roundings of the dtype that f computes in."""
    adjoint, roundings = how.pop("adjoint", ReversibleAdjoint()), how.pop("roundings", 64)
    got = penalised(adjoint, function, leaves, **how)
    plain: Any = how.get("solver", Reversible(0.8))
    unrolled: dict[str, Any] = {**how, "solver": Reversible(plain.beta)}
    want = penalised(UnrolledAdjoint(), function, leaves, **unrolled)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        error = float((g - w).double().norm() / w.double().norm().clamp(min=1e-300))
        assert error <= roundings * torch.finfo(leaves[0].dtype).eps, error


SETTINGS: dict[str, dict[str, Any]] = {
    "one step": {"max_steps": 1},
    "sixteen steps": {"max_steps": 16},
    "schedule": {"solver": Reversible(((0.5, 0.6), (0.7, 1.2), (0.9, 0.4))), "max_steps": 3},
    "adaptive": {"solver": Reversible("adaptive")},
    "tolerance": {"max_steps": 60, "rtol": 1e-3, "atol": 1e-3},
    "saved": {"save_at": (0, 3, 7, 2)},
    "one sample": {"batch_dims": 0},
    "from two states": {"continued": True},
    "segments": {"adjoint": ReversibleAdjoint(segment=3)},
    "stored": {"adjoint": ReversibleAdjoint(segment=1)},
    # Seven undone steps multiply a rounding by up to 0.2^-7.
    "unchecked": {"adjoint": ReversibleAdjoint(verify=False), "roundings": 5**7},
    # Integers round states to 2^-52 of the greatest component of a sample.
    "bitwise": {"solver": Reversible(0.75, arithmetic="bitwise"), "roundings": 1024},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_second_derivatives_are_those_of_the_recorded_loop(name: str):
    agree(cell, dense(), **SETTINGS[name])


NARROW = ["sixteen steps", "saved", "from two states", "one sample", "segments", "adaptive"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NARROW)
def test_narrow_functions_with_wide_states(dtype: torch.dtype, name: str):
    agree(cell, dense(dtype), **SETTINGS[name])


def collecting(z: Tensor, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    pre = z @ args[0] + args[1]
    return torch.tanh(pre), (pre * args[1]).square().mean(dim=1)


@pytest.mark.parametrize("has_aux", ["last", "sum"])
@pytest.mark.parametrize("name", ["sixteen steps", "one sample", "segments"])
def test_auxiliary_outputs(has_aux: str, name: str):
    agree(collecting, dense(), has_aux=has_aux, **SETTINGS[name])


def test_functions_of_the_step():
    agree(lambda z, args, step: cell(z, args) / (1 + step), dense(), with_step=True, save_at=(2,))


def test_samples_that_read_each_other_and_stop_at_different_steps():
    def coupled(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        return torch.tanh(0.3 * nn.functional.batch_norm(z @ args[0], None, None, training=True) + args[1])

    agree(coupled, dense(), max_steps=60, rtol=1e-3, atol=1e-3, batch_dims=1)


def test_dropout_draws_the_same_mask_in_every_pass():
    agree(lambda z, args: nn.functional.dropout(cell(z, args), 0.4), dense())


def test_trees_and_captured_tensors_of_every_kind():
    z0, weight, shift = dense()
    layer = nn.Linear(4, 4).double()
    scale = drawn(4)
    hooked = drawn(4)
    hooked.register_hook(lambda g: None)

    def run(adjoint: Any) -> list[Tensor]:
        made = scale.exp()

        def function(z: dict[str, Tensor], args: Any) -> dict[str, Tensor]:
            a = torch.tanh(0.3 * layer(z["a"]) + args[0] + z["b"] * made)
            return {"a": a, "b": torch.sin(0.2 * z["a"] @ weight) + hooked}

        leaves = (z0, weight, shift, scale, hooked, *layer.parameters())
        start = {"a": z0, "b": z0.detach()[:, :4] * 0.5}
        s: Any = solve(function, start, (shift,), solver=Reversible(0.8), adjoint=adjoint, max_steps=5)
        loss = s.z1["a"].square().sum() + s.y1["b"].sin().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        return list(torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves))

    for g, w in zip(run(ReversibleAdjoint()), run(UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-13)


def test_attention_whose_fused_kernel_has_no_second_derivative():
    z0, weight, shift = (t.detach().requires_grad_() for t in (drawn(2, 5, 4), drawn(4, 4, size=0.4), drawn(2, 5, 4)))

    def attention(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        q = (z @ args[0]).unsqueeze(1)
        return torch.tanh(nn.functional.scaled_dot_product_attention(q, q, q).squeeze(1) + args[1])

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        want = penalised(UnrolledAdjoint(), attention, (z0, weight, shift))
    for g, w in zip(penalised(ReversibleAdjoint(), attention, (z0, weight, shift)), want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-11, atol=1e-13)


def test_a_sample_that_is_not_finite_leaves_the_others_their_second_derivatives():
    z0, weight, shift = dense()
    growth = torch.tensor([[0.0], [1e30], [0.0]], dtype=torch.float64)

    def run(adjoint: Any, rows: list[int], keep: list[int]) -> Tensor:
        def function(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
            return torch.tanh(z @ weight + args[0]) + args[1] * z**8

        s: Any = solve(function, z0[rows], (shift[rows], growth[rows]), adjoint=adjoint, throw=False)
        (first,) = torch.autograd.grad(s.z1[keep].square().sum(), weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight)[0]

    torch.testing.assert_close(run(ReversibleAdjoint(), [0, 1, 2], [0, 2]), run(UnrolledAdjoint(), [0, 2], [0, 1]))


def test_gradgradcheck_accepts_the_reversible_gradient():
    def run(z0: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        s: Any = solve(cell, z0, (weight, shift), solver=Reversible(0.7), max_steps=3)
        return s.z1, s.y1

    assert torch.autograd.gradgradcheck(run, (drawn(2, 2), drawn(2, 2), drawn(2, 2)))


def test_third_derivatives_are_refused():
    z0, weight, shift = dense()
    s: Any = solve(cell, z0, (weight, shift), max_steps=3)
    (first,) = torch.autograd.grad(s.z1.square().sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight, create_graph=True)
    with pytest.raises(GradientError, match=r"third derivatives .* use UnrolledAdjoint"):
        second.sum().backward()


def test_a_hook_that_clips_gradients_inside_the_function_is_refused():
    def clipped(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        value = cell(z, args)
        if value.requires_grad:
            value.register_hook(lambda g: g.clamp(-0.05, 0.05))
        return value

    with pytest.raises(GradientError, match="depends on the size of the gradient"):
        penalised(ReversibleAdjoint(), clipped, dense())


def test_a_function_that_changed_after_the_first_derivative_is_refused():
    z0, weight, shift = dense()
    knob = [1.0]
    s: Any = solve(lambda z, a: knob[0] * cell(z, a), z0, (weight, shift), max_steps=5)
    (first,) = torch.autograd.grad(s.z1.square().sum(), weight, create_graph=True)
    knob[0] = 1.1
    with pytest.raises(GradientError, match="does not repeat"):
        first.sum().backward()


def test_tensors_changed_in_place_after_the_first_derivative_are_refused():
    z0, weight, shift = dense()
    s: Any = solve(cell, z0, (weight, shift), max_steps=5)
    (first,) = torch.autograd.grad(s.z1.square().sum(), weight, create_graph=True)
    with torch.no_grad():
        weight.mul_(1.01)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.sum().backward()


def test_first_gradients_are_the_same_bits_with_a_graph_of_them():
    leaves = dense(torch.float32)
    s: Any = solve(cell, leaves[0], leaves[1:], max_steps=12)
    plain = torch.autograd.grad(s.z1.sum(), leaves, retain_graph=True)
    recorded = torch.autograd.grad(s.z1.sum(), leaves, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))


@pytest.mark.parametrize("steps", [1, 9, 16])
def test_evaluations_of_a_second_backward_pass(steps: int):
    z0, weight, shift = dense()
    count = [0]

    def counted(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        count[0] += 1
        return cell(z, args)

    s: Any = solve(counted, z0, (weight, shift), max_steps=steps)
    (first,) = torch.autograd.grad(s.z1.sum(), weight, create_graph=True)
    assert count[0] == 4 * steps
    first.square().sum().backward()
    # There, once more but for the last segment, and back.
    segment = round(steps**0.5)
    assert count[0] - 4 * steps == 2 * (steps + steps - segment + steps)


def greatest_number_of_states(steps: int) -> int:
    """Return how many of the states that f saw in a second backward pass were alive at once."""
    z0, weight, shift = dense()
    seen: list[StorageWeakRef] = []
    alive = 0

    def counted(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal alive, seen
        seen = [ref for ref in seen if not ref.expired()] + [StorageWeakRef(z.untyped_storage())]
        alive = max(alive, len(seen))
        return cell(z, args)

    s: Any = solve(counted, z0, (weight, shift), adjoint=ReversibleAdjoint(verify=False), max_steps=steps)
    (first,) = torch.autograd.grad(s.z1.sum(), weight, create_graph=True)
    seen, alive = [], 0
    torch.autograd.grad(first.square().sum(), (weight, z0))
    return alive


def test_memory_of_a_second_derivative_grows_with_the_root_of_the_steps():
    few, more, most = (greatest_number_of_states(n) for n in (9, 36, 144))
    assert 0 < more - few <= 5 * 3
    # The root doubles each time, so what is stored grows twice as much the second time, not four times.
    assert most - more <= 2 * (more - few) + 2


@pytest.mark.skipif(torch.__version__ < "2.13", reason="an older torch cannot compile a VJP inside a function")
@pytest.mark.filterwarnings("ignore")
def test_second_derivatives_of_compiled_half_steps():
    agree(cell, dense(), solver=Reversible(0.8, compile=True), max_steps=3)
