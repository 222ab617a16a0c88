"""From a torch function to a graph: names, locations, refusals, and what the graph means."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from complex_balls import ComplexBalls
from complex_multiprecision import ComplexMultiprecision
from verify.reference.arithmetic import Multiprecision, Perturbed
from verify.reference.arithmetic.balls import Balls
from verify.reference.graph import (
    DataDependentError,
    Program,
    RandomOperationError,
    ShapeError,
    Traced,
    TracingError,
    UnsupportedOperationError,
    WrongReturnError,
    check_covered,
    operation_table,
    register,
    trace,
    unregister,
)


F64 = torch.float64
Z = torch.tensor([[0.3, -0.7, 0.2], [0.1, 0.4, -0.6]], dtype=F64)


def evaluate(traced: Traced, ops: Any, z: Any = None) -> Any:
    fixed = {name: values for name, values in traced.arrays().items() if name != "z0"}
    program = Program(traced.forward, ops, fixed)
    return program({"z0": traced.arrays()["z0"] if z is None else z})["z0"]


def gradients(traced: Traced, ops: Any, cotangent: Any) -> Any:
    program = Program(traced.vjp, ops, {name: values for name, values in traced.arrays().items() if name != "z0"})
    return program({"z0": traced.arrays()["z0"], "cotangent": cotangent})


def difference(traced: Traced, cotangent: np.ndarray, way: np.ndarray, digits: int = 60) -> tuple[Any, Any]:
    """<c, f(z + h v) - f(z - h v)> / 2h with h = 10^-20, and <K^T c, v>, both in mpmath."""
    ops = Multiprecision(digits)
    z, v = ops.convert(traced.arrays()["z0"]), ops.convert(way)
    h = ops.multiply(ops.convert(np.asarray(10.0**-10)), ops.convert(np.asarray(10.0**-10)))
    ahead = evaluate(traced, ops, ops.add(z, ops.multiply(v, h)))
    behind = evaluate(traced, ops, ops.subtract(z, ops.multiply(v, h)))
    quotient = ops.sum(ops.multiply(ops.convert(cotangent), ops.subtract(ahead, behind)))[()] / (2 * h[()])
    pulled = gradients(traced, ops, cotangent)["z0"]
    return quotient, ops.sum(ops.multiply(pulled, v))[()]


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3, dtype=F64)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.tensor(0.5, dtype=F64))

    def forward(self, z: torch.Tensor, args: Any) -> torch.Tensor:
        return self.scale * torch.tanh(self.inner(z) + args["x"])


def test_leaves_are_named_by_module_args_and_state() -> None:
    traced = trace(Cell(), Z, {"x": Z[:1].clone(), "note": "not a tensor", "count": 3})
    assert traced.leaves == ("z0", "args.x", "parameters.inner.weight", "parameters.inner.bias")
    assert "buffers.scale" in traced.values
    assert traced.vjp.output_names == traced.leaves


def test_captured_tensors_of_closures_partials_and_methods_are_found() -> None:
    weight, shift = torch.eye(3, dtype=F64, requires_grad=True), torch.ones(3, dtype=F64)

    def function(z: torch.Tensor, args: Any, shift: torch.Tensor) -> torch.Tensor:
        return z @ weight + shift

    traced = trace(functools.partial(function, shift=shift), Z)
    assert set(traced.values) == {"z0", "captured.weight", "captured.shift"}
    assert traced.leaves == ("z0", "captured.weight")
    assert trace(Cell().forward, Z, {"x": Z}).leaves[-1] == "parameters.inner.bias"


def test_argument_that_is_also_captured_is_one_leaf() -> None:
    weight = torch.tensor(0.25, dtype=F64, requires_grad=True)
    traced = trace(lambda z, args: args["w"] * z + weight * z, Z, {"w": weight})
    assert traced.leaves == ("z0", "args.w")
    pulled = gradients(traced, Multiprecision(30), np.ones(Z.shape))["args.w"]
    assert abs(float(pulled[()]) - 2 * float(Z.sum())) < 2.0**-50


def test_state_may_be_a_pytree() -> None:
    traced = trace(lambda z, args: {"a": z["b"].tanh(), "b": z["a"] * 0.5}, {"a": Z, "b": Z + 1})
    assert traced.state == ("z0.a", "z0.b")
    program = Program(traced.forward, Balls(80), {})
    values = program({"z0.a": Z.numpy(), "z0.b": (Z + 1).numpy()})
    assert values["z0.a"][0, 0].contains(program.ops.tanh(program.ops.convert(np.asarray(1.3)))[()])


def test_casts_between_floating_dtypes_are_dropped_and_listed() -> None:
    traced = trace(lambda z, args: (z.float() * 0.1).double(), Z)
    assert len(traced.casts) == 2
    assert "float64 to float32" in traced.casts[0]
    assert "test_graph_tracing.py" in traced.casts[0]
    ops = Multiprecision(40)
    exact = ops.multiply(ops.convert(Z.numpy()), ops.convert(np.asarray(0.1)))
    assert (evaluate(traced, ops) == exact).all()


def test_constants_are_taken_at_their_stored_bits() -> None:
    narrow = torch.tensor(0.1, dtype=torch.float32)
    traced = trace(lambda z, args: z * narrow, Z.float())
    assert traced.arrays()["captured.narrow"] == float(np.float32(0.1)) != 0.1


def test_in_place_writes_inside_the_function_become_values() -> None:
    def function(z: torch.Tensor, args: Any) -> torch.Tensor:
        h = z.clone()
        h[:, 0] = 0.5 * h[:, 1]
        h += 1
        h[:, 1:].mul_(0.25)
        return h

    assert (
        np.abs(Multiprecision(30).to_float64(evaluate(trace(function, Z), Multiprecision(30)))).tolist()
        == np.abs(function(Z, ()).numpy()).tolist()
    )


def uses_atan(z: torch.Tensor, args: Any) -> torch.Tensor:
    return torch.i0(z) * 0.5


def test_unsupported_operation_says_its_name_place_and_remedy() -> None:
    with pytest.raises(UnsupportedOperationError) as caught:
        check_covered(trace(uses_atan, Z).forward)
    message = str(caught.value)
    assert caught.value.operation == "aten.i0.default"
    for part in ("aten.i0.default", "test_graph_tracing.py", "torch.i0(z) * 0.5", "register("):
        assert part in message


def test_registered_rule_makes_an_operation_covered() -> None:
    traced = trace(uses_atan, Z)

    @register("aten.i0.default")
    def atan(ops: Any, x: Any) -> Any:
        """Newton's method on tan y = x."""
        y = ops.convert(np.arctan(ops.to_float64(x)))
        for _ in range(3):
            sine, cosine = ops.sin(y), ops.cos(y)
            y = ops.subtract(y, ops.multiply(cosine, ops.subtract(sine, ops.multiply(x, cosine))))
        return y

    try:
        ops = Multiprecision(30)
        assert np.max(np.abs(ops.to_float64(evaluate(traced, ops)) - np.arctan(Z.numpy()) / 2)) < 2.0**-50
        assert "aten.i0.default" in operation_table()
        with pytest.raises(ValueError, match="has a rule already"):
            register("aten.i0.default")(atan)
    finally:
        unregister("aten.i0.default")
    with pytest.raises(UnsupportedOperationError):
        check_covered(traced.forward)


def test_registration_needs_full_names() -> None:
    with pytest.raises(ValueError, match=r"namespace\.name\.overload"):
        register("tanh")(uses_atan)
    with pytest.raises(TypeError, match="at least one operation"):
        register()


def first_row(ops: Any, x: Any) -> Any:
    return x[0]


def test_rule_with_a_wrong_shape_is_caught() -> None:
    traced = trace(uses_atan, Z)
    register("aten.i0.default")(first_row)
    try:
        with pytest.raises(ShapeError, match="correct the registered rule"):
            evaluate(traced, Multiprecision(20))
    finally:
        unregister("aten.i0.default")


def branches(z: torch.Tensor, args: Any) -> torch.Tensor:
    return z * 0.5 if z.sum() > 0 else z * 0.25


def reads_item(z: torch.Tensor, args: Any) -> torch.Tensor:
    return z * float(z[0, 0].item())


def masks(z: torch.Tensor, args: Any) -> torch.Tensor:
    h = z.clone()
    h[0, : z[z > 0].numel()] = 0
    return h


@pytest.mark.parametrize("function", [branches, reads_item, masks])
def test_data_dependent_function_is_refused_with_its_line(function: Any) -> None:
    with pytest.raises(DataDependentError, match=r"values of tensors.*test_graph_tracing.py.*torch\.where"):
        trace(function, Z)


def test_random_numbers_are_refused_with_their_line_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RandomOperationError, match=r"random numbers.*test_graph_tracing.py"):
        trace(lambda z, args: z + torch.rand_like(z), Z)
    with pytest.raises(RandomOperationError, match=r"\.eval\(\)"):
        trace(lambda z, args: nn.functional.dropout(z, 0.5), Z)
    assert torch.equal(before, torch.get_rng_state())


def test_training_batch_norm_is_refused_and_its_statistics_are_restored() -> None:
    norm = nn.BatchNorm1d(3, dtype=F64)
    with pytest.raises(TracingError, match=r"buffers\.norm\.running_mean.*\.eval\(\)"):
        trace(lambda z, args: norm(z), Z)
    statistics = dict(norm.named_buffers())
    assert torch.equal(statistics["running_mean"], torch.zeros(3, dtype=F64))
    assert int(statistics["num_batches_tracked"]) == 0


WRONG: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda z, args: z[:, :2], r"shape \(2, 2\) for a state of shape \(2, 3\)"),
    (lambda z, args: (z, z), "another structure"),
    (lambda z, args: z > 0, "floating tensor"),
    (lambda z, args: None, "another structure|NoneType"),
]


@pytest.mark.parametrize(("function", "message"), WRONG)
def test_wrong_return_is_refused(function: Any, message: str) -> None:
    with pytest.raises(WrongReturnError, match=message):
        trace(function, Z)


def test_raising_function_is_named_with_its_line() -> None:
    def function(z: torch.Tensor, args: Any) -> torch.Tensor:
        raise KeyError("x")

    with pytest.raises(TracingError, match=r"raised KeyError \('x'\) at .*test_graph_tracing.py"):
        trace(function, Z)


@pytest.mark.parametrize("z", [torch.ones(2, dtype=torch.int64), [1.0, 2.0], []])
def test_state_that_is_not_floating_is_refused(z: Any) -> None:
    with pytest.raises(TracingError, match="state"):
        trace(lambda z, args: z, z)


NORM = nn.GroupNorm(3, 3, dtype=F64)
ROUNDED: dict[str, Callable[[Any], Any]] = {
    "erf": lambda z: torch.erf(z),
    "gelu": lambda z: nn.functional.gelu(z),
    "gelu tanh": lambda z: nn.functional.gelu(z, approximate="tanh"),
    "log2": lambda z: torch.log2(z + 2),
    "exp2": lambda z: torch.exp2(z),
    "log10": lambda z: torch.log10(z + 2),
    "power": lambda z: (z + 2) ** 0.3,
    "erfinv": lambda z: torch.erfinv(z / 4),
    "variance": lambda z: z - z.var(1, keepdim=True),
    "group norm": lambda z: NORM(z.reshape(1, 3, 2)).reshape(2, 3),
    "elu": lambda z: nn.functional.elu(z, 1.67),
    "selu": lambda z: nn.functional.selu(z),
    "hardsigmoid": lambda z: nn.functional.hardsigmoid(z),
    "hardswish": lambda z: nn.functional.hardswish(z),
}


@pytest.mark.parametrize("name", sorted(ROUNDED))
def test_rounded_constants_of_derivative_formulas_are_made_exact(name: str) -> None:
    """With torch's own float64 constants the two would differ by 1e-17; the difference quotient is right to 1e-35."""
    generator = np.random.default_rng(5)
    cotangent, way = generator.normal(size=Z.shape), generator.normal(size=Z.shape)
    quotient, pulled = difference(trace(lambda z, args: ROUNDED[name](z), Z), cotangent, way)
    assert abs(quotient - pulled) < 1e-30 * abs(pulled)


def smooth(z: torch.Tensor, args: Any) -> torch.Tensor:
    h = torch.softmax(z @ args["w"], 1) + nn.functional.layer_norm(z, (3,)) * torch.sigmoid(z)
    return h * nn.functional.leaky_relu(z, 0.1) + z.abs().amax(1, keepdim=True)


def test_complex_step_gives_the_derivative_of_the_pullback() -> None:
    generator = np.random.default_rng(3)
    traced = trace(smooth, Z, {"w": torch.tensor(generator.normal(size=(3, 3)))})
    way, cotangent = generator.normal(size=Z.shape), generator.normal(size=Z.shape)
    pulled = gradients(traced, Multiprecision(50), cotangent)["z0"]
    wanted = float(np.sum(Multiprecision(50).to_float64(pulled) * way))
    plane = ComplexMultiprecision(50)
    h = 10.0**-20
    z = plane.complex(Multiprecision(50).convert(Z.numpy()), Multiprecision(50).convert(h * way))
    moved = evaluate(traced, plane, z)
    derivative = sum(value * weight for value, weight in zip(plane.imaginary(moved).flat, cotangent.flat, strict=True))
    assert abs(float(derivative) / h - wanted) < 1e-13 * abs(wanted)
    disc = ComplexBalls(170)
    around = disc.complex(Balls(170).convert(Z.numpy()), Balls(170).convert(h * way))
    enclosed = disc.imaginary(evaluate(traced, disc, around))
    total = sum(float(value) * weight for value, weight in zip(enclosed.flat, cotangent.flat, strict=True))
    assert abs(total / h - wanted) < 1e-13 * abs(wanted)


def test_perturbed_arithmetic_spreads_by_its_unit_roundoff() -> None:
    traced = trace(smooth, Z, {"w": torch.eye(3, dtype=F64)})
    exact = Multiprecision(40).to_float64(evaluate(traced, Multiprecision(40)))
    perturbed = Perturbed(2.0**-20, 2.0**-20, seed=1)
    spread = np.max(np.abs(perturbed.to_float64(evaluate(traced, perturbed)) - exact))
    # some forty results, each off by at most one unit of numbers no greater than 4
    assert 2.0**-26 < spread < 160 * 2.0**-20


def test_program_names_what_it_lacks() -> None:
    traced = trace(Cell(), Z, {"x": Z})
    with pytest.raises(KeyError, match="no input 'nothing'"):
        Program(traced.forward, Balls(64), {"nothing": np.zeros(1)})
    program = Program(traced.forward, Balls(64), {})
    with pytest.raises(KeyError, match="free inputs are"):
        program({"z0": Z.numpy()})
    with pytest.raises(ValueError, match="recorded at"):
        Program(traced.forward, Balls(64), {"args.x": np.zeros(2)})


def test_program_at_a_known_state_has_the_value_and_leaves_the_pullback() -> None:
    traced, ops = trace(Cell(), Z, {"x": Z}), Multiprecision(30)
    fixed = {name: values for name, values in traced.arrays().items() if name != "z0"}
    whole = Program(traced.linearised, ops, fixed)
    assert whole.known == {}
    there = whole.at({"z0": Z.numpy()})
    assert there.free == ("cotangent",)
    assert set(there.known) == {"f"}
    assert np.array_equal(there.known["f"], evaluate(traced, ops))
    for scale in (1.0, -2.0):
        results = there({"cotangent": scale * Z.numpy()})
        for name, wanted in gradients(traced, ops, scale * Z.numpy()).items():
            assert np.array_equal(results[name], wanted), name
    assert whole.free == ("z0", "cotangent")
    with pytest.raises(KeyError, match="free inputs are cotangent; given was 'z0'"):
        there.at({"z0": Z.numpy()})
    with pytest.raises(ValueError, match="recorded at"):
        whole.at({"z0": np.zeros(2)})


def test_restricted_graph_keeps_what_one_output_needs() -> None:
    traced = trace(Cell(), Z, {"x": Z})
    alone = traced.vjp.restricted(["z0"])
    assert alone.output_names == ("z0",)
    assert len(alone.nodes) < len(traced.vjp.nodes)
    with pytest.raises(KeyError, match="no output 'w'"):
        traced.vjp.restricted(["w"])


class Named(torch.Tensor):
    """A subclass with torch's operations."""


class Wrapped(torch.Tensor):
    """A subclass with operations of its own."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


def test_subclass_with_torchs_operations_is_taken_as_a_tensor() -> None:
    x = torch.ones(2, 3, dtype=torch.float64)
    traced = trace(lambda z, x: torch.tanh(z) + x, Z.as_subclass(Named), x.as_subclass(Named))
    expected = (torch.tanh(Z) + x).numpy()
    ops = Multiprecision(30)
    assert np.max(np.abs(ops.to_float64(evaluate(traced, ops)) - expected)) < 2.0**-50


def test_subclass_with_operations_of_its_own_is_refused_in_words() -> None:
    wrapped = torch.Tensor._make_wrapper_subclass(Wrapped, (2, 3), dtype=torch.float64)  # type: ignore[attr-defined]
    with pytest.raises(TracingError, match="args is a Wrapped, a tensor with operations of its own"):
        trace(lambda z, x: torch.tanh(z), Z, wrapped)
