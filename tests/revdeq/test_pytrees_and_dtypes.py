"""States and args of any structure and floating dtype, with gradients leaf by leaf."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq._tree import flatten, unflatten


class Pair(NamedTuple):
    """A state of two parts."""

    position: torch.Tensor
    momentum: torch.Tensor


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()


def test_named_tuple_state_keeps_its_type_and_gradients(agree: Any):
    z0, x = Pair(normal(3, 2), normal(3, 5)), normal(3, 5)
    mix = normal(2, 5)

    def function(z: Pair, a: torch.Tensor) -> Pair:
        return Pair(0.5 * torch.tanh(z.momentum @ mix.T), 0.3 * torch.sin(z.position @ mix) + a)

    found = solve(function, z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
    assert isinstance(found.z1, Pair)
    assert isinstance(found.y1, Pair)
    agree(function, z0, x, (*z0, x, mix))


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "ordered", "nested"])
def test_state_of_any_structure_is_returned_in_it(agree: Any, kind: str):
    a, b = normal(3, 2), normal(3, 2)
    trees: dict[str, Any] = {
        "tuple": (a, b),
        "list": [a, b],
        "dict": {"a": a, "b": b},
        "ordered": OrderedDict(a=a, b=b),
        "nested": {"x": [a, (b,)], "y": ()},
    }
    z0 = trees[kind]

    def function(z: Any, shift: torch.Tensor) -> Any:
        leaves, structure = flatten(z)
        return unflatten([0.5 * torch.tanh(leaf) + shift for leaf in leaves], structure)

    shift = normal(3, 2)
    found = solve(function, z0, shift, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
    assert flatten(found.z1)[1] == flatten(z0)[1]
    assert type(found.z1) is type(z0)
    agree(function, z0, shift, (a, b, shift))


def test_leaves_may_have_different_dtypes(agree: Any):
    z0 = {"wide": normal(3, 2), "narrow": normal(3, 2, dtype=torch.float32)}

    def function(z: dict[str, torch.Tensor], a: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "wide": 0.5 * torch.tanh(z["narrow"].double()) + a,
            "narrow": (0.5 * torch.sin(z["wide"])).float(),
        }

    x = normal(3, 2)
    found = solve(function, z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
    assert found.z1["wide"].dtype == torch.float64
    assert found.z1["narrow"].dtype == torch.float32
    agree(function, z0, x, (z0["wide"], z0["narrow"], x))


def test_tensors_of_args_that_do_not_require_grad_get_none():
    x, mask, index = normal(3, 2), torch.ones(3, 2, dtype=torch.bool), torch.tensor([1, 0])

    def function(z: torch.Tensor, a: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.where(a["mask"], 0.5 * torch.tanh(z[:, a["index"]]), z) + a["x"]

    args = {"x": x, "mask": mask, "index": index}
    found = solve(
        function,
        torch.zeros(3, 2, dtype=torch.float64),
        args,
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        max_steps=3,
    )
    found.z1.sum().backward()
    assert x.grad is not None
    assert mask.grad is None


# Every leaf of a float32 function is that of unrolling to the bit where states are wider. Else the three parts of z0's
# gradient are summed in another order, and in 16 bits the parts of a gradient in float32 instead of the dtype itself.
ROUNDING = {torch.float64: 2.0**-51, torch.float32: 2.0**-22, torch.float16: 2.0**-7, torch.bfloat16: 2.0**-4}


@pytest.mark.parametrize("state_dtype", [None, "same", torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_gradient_in_each_dtype_equals_unrolled(agree: Any, dtype: torch.dtype, state_dtype: Any):
    chosen = dtype if state_dtype == "same" else state_dtype
    if chosen is not None and torch.promote_types(chosen, dtype) != chosen:
        chosen = torch.float64
    z0, x = normal(3, 4, dtype=dtype), normal(3, 4, dtype=dtype)
    weight = (0.1 * torch.randn(4, 4)).to(dtype).requires_grad_()
    agree(
        lambda z, a: torch.tanh(z @ weight + a),
        z0,
        x,
        (z0, x, weight),
        tolerance=0.0 if dtype == torch.float32 and chosen in (None, torch.float64) else ROUNDING[dtype],
        solver=Reversible(0.5, state_dtype=chosen),
        max_steps=2,
    )


def test_states_are_float64_by_default_and_the_function_sees_the_dtype_of_the_start():
    seen: set[torch.dtype] = set()

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        seen.add(z.dtype)
        return 0.1 * z + a

    x = torch.full((2, 3), 0.1, requires_grad=True)
    solutions: list[Any] = [
        solve(
            function,
            torch.zeros(2, 3),
            x,
            solver=Reversible(0.8, state_dtype=dtype),
            adjoint=ReversibleAdjoint(verify=False),
            max_steps=9,
        )
        for dtype in (None, torch.float64, torch.float32)
    ]
    assert torch.equal(solutions[0].z1, solutions[1].z1)
    assert all(found.z1.dtype == torch.float32 for found in solutions)
    for found in solutions:
        found.z1.sum().backward()
        assert found.health.reconstruction_error is not None
    assert seen == {torch.float32}
    errors = [found.health.reconstruction_error for found in solutions]
    assert errors[0] == errors[1]
    assert errors[0] < 1e-6 * errors[2]


def test_wide_states_with_a_dyadic_beta_are_rebuilt_to_the_bit():
    weight = 0.1 * torch.randn(4, 4)
    x = torch.randn(3, 4, requires_grad=True)

    def health(adjoint: ReversibleAdjoint) -> Any:
        found = solve(
            lambda z, a: torch.tanh(z @ weight + a),
            torch.zeros(3, 4),
            x,
            solver=Reversible(0.5),
            adjoint=adjoint,
            max_steps=4,
        )
        found.z1.sum().backward()
        return found.health

    assert health(ReversibleAdjoint(verify=False)).reconstruction_error == 0.0
    checked = health(ReversibleAdjoint(segment=4))
    assert (checked.segments, checked.repeated_segments) == (1, 0)


def test_default_dtype_does_not_matter():
    x = torch.randn(3, 4, dtype=torch.float32, requires_grad=True)

    def gradient(adjoint: Any) -> torch.Tensor:
        found = solve(
            lambda z, a: 0.5 * torch.tanh(z) + a,
            torch.zeros_like(x),
            x,
            solver=Reversible(0.8),
            adjoint=adjoint,
            max_steps=3,
        )
        return torch.autograd.grad(found.z1.sum(), x)[0]

    want = gradient(ReversibleAdjoint())
    torch.set_default_dtype(torch.float64)
    assert torch.equal(gradient(ReversibleAdjoint()), want)
    assert gradient(UnrolledAdjoint()).dtype == torch.float32
