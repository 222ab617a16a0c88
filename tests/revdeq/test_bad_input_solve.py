"""Bad input gets one sentence: what was given, what is allowed, what to do; and what f raises passes through."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from revdeq import ImplicitAdjoint, Relaxed, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


X = torch.ones(2, 3)


def attempt(function: Any = lambda z, a: 0.5 * z + 1.0, z0: Any = X, args: Any = (), **options: Any) -> Any:
    settings: dict[str, Any] = {"solver": Reversible(0.8), "adjoint": ReversibleAdjoint(), "max_steps": 3}
    return solve(function, z0, args, **{**settings, **options})


BETAS: list[tuple[Any, type[Exception], str]] = [
    (0, ValueError, r"beta is 0; it must be a number with 0 < beta < 2, not 1, such as 0\.5"),
    (2, ValueError, r"beta is 2; it must be a number with 0 < beta < 2"),
    (-0.5, ValueError, r"beta is -0\.5; it must be"),
    (math.nan, ValueError, r"beta is nan; it must be"),
    (math.inf, ValueError, r"beta is inf; it must be"),
    (1, ValueError, r"beta is 1; at 1 the step forgets its start and cannot be reversed .* such as 0\.9 or 1\.1"),
    (1.0, ValueError, r"beta is 1\.0; at 1 the step forgets its start"),
    ("0.5", ValueError, r"beta is '0\.5'; the words allowed are 'auto' and 'adaptive', or give a number"),
    (None, TypeError, r"beta is None; it must be"),
    (True, TypeError, r"beta is True; it must be"),
    (torch.tensor(0.5), TypeError, r"beta is tensor\(0\.5.*it must be"),
]


@pytest.mark.parametrize(("beta", "error", "message"), BETAS, ids=lambda value: str(value)[:12])
def test_beta_that_cannot_be_is_refused(beta: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Reversible(beta)


@pytest.mark.parametrize("throw", [1, None, "no"])
def test_throw_that_is_no_bool_is_refused(throw: Any):
    with pytest.raises(TypeError, match=r"throw is .+; it must be True or False"):
        attempt(throw=throw)


def test_plain_iteration_is_allowed_where_nothing_is_reversed():
    assert repr(Relaxed(1.0)).startswith("Relaxed(beta=1.0")
    for beta in (0.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="it must be a number with 0 < beta < 2"):
            Relaxed(beta)


def test_numpy_float_is_a_beta():
    assert Reversible(np.float64(0.5)).beta == 0.5


STEPS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, r"max_steps is -1; it must be an int >= 0, such as 8"),
    (2.0, TypeError, r"max_steps is 2\.0; it must be an int >= 0"),
    ("3", TypeError, r"max_steps is '3'; it must be"),
    (True, TypeError, r"max_steps is True; it must be"),
]


@pytest.mark.parametrize(("steps", "error", "message"), STEPS, ids=lambda value: str(value)[:12])
def test_number_of_steps_that_cannot_be_is_refused(steps: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        attempt(max_steps=steps)


def test_no_steps_return_the_start():
    found = attempt(max_steps=0)
    assert torch.equal(found.z1, X)
    assert torch.equal(found.y1, X)
    assert found.num_steps.tolist() == [0, 0]


TOLERANCES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"rtol": 1e-3}, ValueError, r"rtol is 0\.001 and atol is None; give both .* or neither"),
    ({"atol": 1e-3}, ValueError, r"rtol is None and atol is 0\.001; give both .* or neither"),
    ({"rtol": -1e-3, "atol": 0.0}, ValueError, r"rtol is -0\.001; it must be a finite number >= 0"),
    ({"rtol": 0.0, "atol": math.nan}, ValueError, r"atol is nan; it must be a finite number >= 0"),
    ({"rtol": 0.0, "atol": math.inf}, ValueError, r"atol is inf; it must be a finite number >= 0"),
    ({"rtol": "1e-3", "atol": 0.0}, TypeError, r"rtol is '1e-3'; it must be a finite number >= 0"),
    ({"rtol": True, "atol": 0.0}, TypeError, r"rtol is True; it must be a finite number >= 0"),
]


@pytest.mark.parametrize(("options", "error", "message"), TOLERANCES, ids=lambda value: str(value)[:24])
def test_tolerance_that_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        attempt(**options)


OBJECTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"solver": Reversible}, TypeError, r"solver is <class .*; it must be a solver object such as Reversible\(0\.8\)"),
    ({"solver": 0.8}, TypeError, r"solver is 0\.8; it must be a solver"),
    ({"adjoint": ReversibleAdjoint}, TypeError, r"adjoint is <class .*; it must be an adjoint object such as"),
    ({"adjoint": "reversible"}, TypeError, r"adjoint is 'reversible'; it must be an adjoint"),
    ({"function": 3}, TypeError, r"function is a int; it must be callable as function\(z, args\)"),
    (
        {"solver": Relaxed(0.8)},
        TypeError,
        r"ReversibleAdjoint cannot differentiate Relaxed\(.*\), whose steps have no inverse; use it with Reversible",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), OBJECTS, ids=lambda value: str(value)[:24])
def test_object_of_the_wrong_kind_is_refused(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        attempt(**options)


STARTS: list[tuple[Any, type[Exception], str]] = [
    (torch.ones(2, 3, dtype=torch.int64), TypeError, r"z0 has dtype torch\.int64; .* \.float\(\)"),
    (torch.ones(2, 3, dtype=torch.bool), TypeError, r"z0 has dtype torch\.bool; a state must have a real floating"),
    (torch.ones(2, 3, dtype=torch.complex64), TypeError, r"z0 has dtype torch\.complex64; .* real floating dtype"),
    ([1.0, 2.0], TypeError, r"z0\[0\] is a float; every leaf of z0 must be a tensor"),
    (None, TypeError, r"z0 is a NoneType; every leaf of z0 must be a tensor"),
    (np.ones(3), TypeError, r"z0 is a ndarray; every leaf of z0 must be a tensor"),
    ({"a": X, "b": 1}, TypeError, r"z0\['b'\] is a int; every leaf of z0 must be a tensor"),
    ((), ValueError, r"z0 has no tensor in it; it must be a tensor or a pytree with at least one"),
    ((X, X.to("meta")), ValueError, r"z0 has leaves on cpu, meta; move them to one device"),
    (
        X.to_sparse(),
        TypeError,
        r"z0 has layout torch\.sparse_coo; a state must be dense, so convert it with \.to_dense",
    ),
]


@pytest.mark.parametrize(("z0", "error", "message"), STARTS, ids=lambda value: str(value)[:24])
def test_start_that_cannot_be_is_refused(z0: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        attempt(lambda z, a: z, z0)


RETURNS: list[tuple[Any, type[Exception], str]] = [
    (lambda z, a: z[:, :2], ValueError, r"returned shape \(2, 2\) for leaf z0; .* the shape of z0, \(2, 3\)"),
    (lambda z, a: z.sum(), ValueError, r"returned shape \(\) for leaf z0"),
    (lambda z, a: z.double(), TypeError, r"returned dtype torch\.float64 for leaf z0; .* torch\.float32: cast z0"),
    (lambda z, a: z.bfloat16(), TypeError, r"returned dtype torch\.bfloat16 for leaf z0"),
    (lambda z, a: z > 0, TypeError, r"returned dtype torch\.bool for leaf z0"),
    (lambda z, a: z.to("meta"), ValueError, r"returned a tensor on meta for leaf z0; .* the device of z0, cpu"),
    (lambda z, a: None, TypeError, r"returned a NoneType for leaf z0; it must return a tensor"),
    (lambda z, a: 1.0, TypeError, r"returned a float for leaf z0; it must return a tensor"),
    (
        lambda z, a: (z, z),
        TypeError,
        r"returned a tuple of \(a tensor of shape \(2, 3\), .* the structure of z0, a tensor",
    ),
    (lambda z, a: {"z": z}, TypeError, r"returned a dict of \{'z': a tensor of shape \(2, 3\)\}; it must return"),
]


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint(), ImplicitAdjoint()], ids=repr)
@pytest.mark.parametrize(("function", "error", "message"), RETURNS, ids=[m[:30] for _, _, m in RETURNS])
def test_value_that_does_not_fit_the_start_is_refused(
    function: Any, error: type[Exception], message: str, adjoint: Any
):
    with pytest.raises(error, match="function " + message):
        attempt(function, adjoint=adjoint)


def test_tree_that_does_not_fit_the_start_is_named_by_leaf():
    z0 = {"a": X, "b": (X, X)}
    with pytest.raises(ValueError, match=r"returned shape \(2,\) for leaf z0\['b'\]\[1\]"):
        attempt(lambda z, a: {"a": z["a"], "b": (z["b"][0], z["b"][1].sum(1))}, z0)


class OwnError(Exception):
    """Raised by the function of a test."""


@pytest.mark.parametrize("call", [1, 2, 4])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint(), ImplicitAdjoint()], ids=repr)
def test_error_of_the_function_passes_through_unchanged(call: int, adjoint: Any):
    raised = OwnError("mine")
    calls: list[int] = []

    def failing(z: torch.Tensor, a: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == call:
            raise raised
        return 0.5 * z

    before = torch.get_rng_state()
    with pytest.raises(OwnError) as caught:
        attempt(failing, adjoint=adjoint)
    assert caught.value is raised
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_error_of_the_function_in_backward_passes_through_and_leaves_everything_as_it_was():
    raised = OwnError("mine")
    norm, calls = nn.BatchNorm1d(3), list[int]()

    def failing(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:
            raise raised
        return torch.tanh(nn.functional.dropout(norm(z), 0.5)) + a

    x = torch.randn(2, 3, requires_grad=True)
    found = attempt(failing, x.detach(), x)
    before = torch.get_rng_state(), [b.clone() for b in norm.buffers()]
    with pytest.raises(OwnError) as caught:
        found.z1.sum().backward()
    assert caught.value is raised
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(a, b) for a, b in zip(before[1], norm.buffers(), strict=True))
    assert not torch.is_autocast_enabled("cpu")


ADJOINTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"segment": 0}, ValueError, r"segment is 0; it must be an int >= 1"),
    ({"segment": 2.0}, TypeError, r"segment is 2\.0; it must be an int >= 1"),
    ({"verify": 0}, TypeError, r"verify is 0; it must be True or False"),
    ({"segment": 4, "verify": False}, ValueError, r"segment is 4 and verify is False, .* give one of the two"),
    ({"on_health": 3}, TypeError, r"on_health is a int; it must be callable as on_health\(health\)"),
]


@pytest.mark.parametrize(("options", "error", "message"), ADJOINTS, ids=lambda value: str(value)[:24])
def test_reversible_adjoint_refuses_what_cannot_be(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        ReversibleAdjoint(**options)


IMPLICIT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"rtol": -1.0}, ValueError, r"rtol is -1\.0; it must be a finite number >= 0"),
    ({"atol": math.nan}, ValueError, r"atol is nan; it must be a finite number >= 0"),
    ({"max_steps": -1}, ValueError, r"max_steps is -1; it must be an int >= 0"),
    ({"solver": "gmres"}, TypeError, r"solver is 'gmres'; it must be a solver such as Relaxed\(1\.0\), or None"),
]


@pytest.mark.parametrize(("options", "error", "message"), IMPLICIT, ids=lambda value: str(value)[:24])
def test_implicit_adjoint_refuses_what_cannot_be(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        ImplicitAdjoint(**options)


STATE_DTYPES: list[tuple[Any, torch.dtype, type[Exception], str]] = [
    (torch.int64, torch.float32, TypeError, r"state_dtype is torch\.int64; give a floating dtype such as"),
    ("float64", torch.float32, TypeError, r"state_dtype is 'float64'; give a floating dtype"),
    (torch.float32, torch.float64, ValueError, r"state_dtype is torch\.float32 but z0 has torch\.float64; .* wider"),
    (torch.float16, torch.bfloat16, ValueError, r"state_dtype is torch\.float16 but z0 has torch\.bfloat16"),
]


@pytest.mark.parametrize(("given", "dtype", "error", "message"), STATE_DTYPES, ids=lambda value: str(value)[:24])
def test_state_dtype_that_cannot_be_is_refused(given: Any, dtype: torch.dtype, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        attempt(lambda z, a: z, X.to(dtype), solver=Reversible(0.8, state_dtype=given))


def test_nothing_that_requires_grad_gives_a_result_without_graph():
    found = attempt(lambda z, a: 0.5 * z + a, X, X)
    assert not found.z1.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        found.z1.sum().backward()


def test_args_may_be_anything():
    marker = object()
    x = torch.ones(2, 3, requires_grad=True)
    args = {
        "n": 3,
        "s": "text",
        "none": None,
        "x": x,
        "object": marker,
        "nested": [x, (1.5, {"y": X})],
        "int": X.long(),
    }

    def function(z: torch.Tensor, a: dict[str, Any]) -> torch.Tensor:
        assert a["object"] is marker
        assert a["none"] is None
        assert a["s"] == "text"
        return z / a["n"] + a["nested"][0] * a["nested"][1][0] + a["int"]

    found = attempt(function, X, args)
    found.z1.sum().backward()
    assert x.grad is not None
