"""Every claim about a user's module holds on a right one, and falls short on one that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from verify.module import (
    CLAIMS,
    Outcome,
    assert_contracting,
    assert_derivative,
    assert_gradient_exact,
    assert_headroom,
    assert_replayable,
    assert_rows_independent,
    check_module,
    gradient,
)
from verify.module.specimen import CheckError


def dense(dtype: torch.dtype = torch.float32, width: int = 4, rows: int = 3):
    cell = nn.Linear(width, width, dtype=dtype)

    def f(z, x):
        return torch.tanh(0.5 * cell(z) + x)

    return f, torch.zeros(rows, width, dtype=dtype), torch.randn(rows, width, dtype=dtype)


def tree():
    p = nn.Parameter(torch.tensor(0.3))

    def f(z, args):
        return {"a": p * torch.cos(z["b"]).sum(1, keepdim=True) + args["x"], "b": 0.3 * torch.sin(z["a"]).expand(2, 3)}

    return f, {"a": torch.ones(2, 1), "b": torch.ones(2, 3)}, {"x": torch.randn(2, 1), "n": 3, "i": torch.arange(2)}


def normalised():
    layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.25), nn.Tanh())
    return (lambda z, x: 0.5 * layers(z) + x), torch.randn(6, 4), torch.randn(6, 4)


def unrelated_dtype():
    cell = nn.Linear(4, 4, dtype=torch.bfloat16)
    return (
        (lambda z, x: torch.tanh(0.3 * cell(z.bfloat16()).float() + x)),
        torch.zeros(2, 4),
        torch.randn(2, 4),
    )


def attention():
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True).eval()
    return (lambda z, x: 0.3 * layer(z + x)), torch.zeros(2, 3, 8), torch.randn(2, 3, 8)


def not_a_leaf():
    w = 1.5 * nn.Parameter(0.1 * torch.randn(4, 4))
    return (lambda z, x: torch.tanh(z @ w + x)), torch.zeros(2, 4), torch.randn(2, 4)


def custom():
    return (lambda z, x: torch.tanh(Product.apply(z, WEIGHT) + x)), torch.zeros(2, 4), torch.randn(2, 4)


class Product(torch.autograd.Function):
    """z * w, whose derivative in w can be made wrong."""

    wrong = 1.0

    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    def backward(ctx, *grad_outputs):
        (g,) = grad_outputs
        z, w = ctx.saved_tensors
        return g * w, Product.wrong * (g * z).sum(0)


WEIGHT = nn.Parameter(torch.tensor([0.1, 0.2, 0.3, 0.4]))

RIGHT = {
    "float64": lambda: dense(torch.float64),
    "float32": dense,
    "bfloat16": lambda: dense(torch.bfloat16),
    "one sample": lambda: ((lambda z, x: 0.5 * torch.cos(z) + x), torch.ones(3), torch.randn(3)),
    "scalar": lambda: ((lambda z, x: 0.5 * torch.cos(z)), torch.tensor(1.0), ()),
    "tree": tree,
    "batch statistics and dropout": normalised,
    "attention": attention,
    "captured, not a leaf": not_a_leaf,
    "custom backward": custom,
}


@pytest.mark.parametrize("factory", RIGHT.values(), ids=list(RIGHT))
def test_a_right_module_holds_and_is_left_as_it_was(factory):
    source = factory()
    state = torch.get_rng_state()
    weight = WEIGHT.detach().clone()
    findings = check_module(source, num_steps=4)
    assert {finding.claim for finding in findings} == set(CLAIMS) - {"compiles"}
    for finding in findings:
        assert finding.outcome in (Outcome.HOLDS, Outcome.NOTED), finding.text()
    assert torch.equal(torch.get_rng_state(), state)
    assert WEIGHT.dtype == weight.dtype
    assert torch.equal(WEIGHT, weight)


def counted():
    calls = [0]

    def f(z, x):
        calls[0] += 1
        return 0.5 * torch.tanh(z) + x / calls[0]

    return f, torch.zeros(2, 4), torch.randn(2, 4)


def other_without_graph():
    return (
        (lambda z, x: 0.5 * torch.tanh(z) + x + (0 if torch.is_grad_enabled() else 1e-3)),
        torch.zeros(2, 4),
        torch.randn(2, 4),
    )


def writes_args():
    return (lambda z, x: 0.5 * torch.tanh(z) + x.data.add_(1e-3)), torch.zeros(2, 4), torch.randn(2, 4)


def writes_a_parameter():
    cell = nn.Linear(4, 4)

    def f(z, x):
        cell.weight.data.mul_(0.99)
        return torch.tanh(0.3 * cell(z) + x)

    return f, torch.zeros(2, 4), torch.randn(2, 4)


def detached():
    cell = nn.Linear(4, 4)
    return (lambda z, x: torch.tanh(0.3 * cell(z) + 0.1 * cell(z).detach() + x)), torch.zeros(2, 4), torch.randn(2, 4)


def wrong_backward():
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z / 2

        @staticmethod
        def backward(ctx, *grad_outputs):
            return 0.501 * grad_outputs[0]

    return (lambda z, x: torch.tanh(Half.apply(z) + x)), torch.zeros(2, 4), torch.randn(2, 4)


def imaginary(gain):
    turn = torch.tensor([[0.0, gain], [-gain, 0.0]])
    return (lambda z, x: z @ turn + x), torch.zeros(2, 2), torch.randn(2, 2)


BROKEN = {
    "another shape": (lambda: ((lambda z, x: z[:1]), torch.zeros(2, 4), ()), "returns", "shape (1, 4)"),
    "not finite": (lambda: ((lambda z, x: z / 0), torch.zeros(2, 4), ()), "returns", "not finite at z0"),
    "raises": (lambda: ((lambda z, x: z @ z), torch.zeros(2, 4), ()), "returns", "cannot be evaluated"),
    "counter": (counted, "one-map", "evaluated again differs"),
    "other without a graph": (other_without_graph, "one-map", "with a graph differs"),
    "writes args": (writes_args, "leaves-no-trace", "changes args"),
    "writes a parameter": (writes_a_parameter, "leaves-no-trace", "changes parameters.cell.weight"),
    "detached": (detached, "derivative", "wrong in"),
    "wrong backward": (wrong_backward, "derivative", "wrong in"),
    "expanding": (lambda: ((lambda z, x: 1.5 * z + x), torch.ones(2, 4), torch.ones(4)), "contracting", "rate 1."),
    "far out": (lambda: imaginary(4.0), "contracting", "rate 2."),
    "overflows": (lambda: ((lambda z, x: z**3 + 2), 9 * torch.ones(2, 4), ()), "contracting", "overflows"),
    "near the end of float16": (
        lambda: ((lambda z, x: torch.tanh(z) + x), torch.zeros(2, 4).half(), 9999 * torch.ones(2, 4).half()),
        "headroom",
        "bits below the greatest number",
    ),
}


@pytest.mark.parametrize(("factory", "claim", "said"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_module_falls_short_in_its_claim(factory, claim, said):
    findings = check_module(factory(), num_steps=3)
    short = [finding for finding in findings if finding.outcome is Outcome.FALLS_SHORT]
    assert claim in {finding.claim for finding in short}
    finding = next(finding for finding in short if finding.claim == claim)
    assert said in finding.text()
    assert finding.advice
    if claim in ("returns", "one-map", "leaves-no-trace"):
        assert all(other.outcome is Outcome.NOT_CHECKED for other in findings[findings.index(finding) + 1 :])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_solver_that_is_wrong_in_one_leaf_is_seen_and_named(monkeypatch, dtype):
    right = gradient.solver_run

    def wrong(specimen, adjoint, **options):
        run = right(specimen, adjoint, **options)
        weight = run.values["parameters.cell.weight"]
        run.values["parameters.cell.weight"] = weight * (1 + 100 * torch.finfo(dtype).eps)
        return run

    monkeypatch.setattr(gradient, "solver_run", wrong)
    (bits, near) = check_module(dense(dtype), only=["gradient-exact"])
    assert bits.outcome is Outcome.HOLDS
    assert near.outcome is Outcome.FALLS_SHORT
    assert "parameters.cell.weight[" in near.found
    assert near.measured is not None
    assert near.measured > 10


def test_bits_that_differ_and_gradients_that_are_nan_are_seen(monkeypatch):
    right, seen = gradient.solver_run, []

    def wrong(specimen, adjoint, **options):
        run = right(specimen, adjoint, **options)
        seen.append(run)
        if len(seen) == 1:
            run.values["args"] = run.values["args"] * torch.nan
        return run

    monkeypatch.setattr(gradient, "solver_run", wrong)
    assert [finding.outcome for finding in check_module(dense(), only=["gradient-exact"])] == [Outcome.FALLS_SHORT] * 2


def test_a_wrong_derivative_of_one_parameter_is_named(monkeypatch):
    monkeypatch.setattr(Product, "wrong", 1.001)
    (finding,) = check_module(custom(), only=["derivative"])
    assert finding.outcome is Outcome.FALLS_SHORT
    assert "wrong in captured.WEIGHT;" in finding.text()


def test_what_cannot_be_had_in_float64_is_compared_in_its_own_dtype_and_said():
    exact, derivative = (check_module(unrelated_dtype(), only=[name])[-1] for name in ("gradient-exact", "derivative"))
    assert exact.outcome is Outcome.HOLDS
    assert "in its own dtype" in exact.found
    assert derivative.outcome is Outcome.NOT_CHECKED


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_every_pair_of_rows_is_told_apart(rows):
    for reads in range(rows):
        for read in range(rows):
            link = torch.zeros(rows, rows)
            link[reads, read] = 0.1
            (finding,) = check_module(((lambda z, a: a @ torch.tanh(z)), torch.ones(rows, 2), link), only=["rows"])
            assert finding.outcome is (Outcome.HOLDS if reads == read else Outcome.NOTED), (reads, read)
            assert reads == read or f"row {reads} of f(z)" in finding.found


def test_leaves_that_no_gradient_reaches_are_named():
    module = nn.Linear(4, 4)

    def f(z, x):
        return torch.tanh(0.3 * z @ module.weight + module.bias.detach() + x)

    noted = check_module((f, torch.zeros(2, 4), torch.randn(2, 4)), only=["gradient-exact"])[-1]
    assert noted.outcome is Outcome.NOTED
    assert "no gradient reaches parameters.module.bias:" in noted.found


def test_masks_that_differ_by_dtype_are_not_taken_for_an_error():
    def f(z, x):
        return 0.5 * torch.tanh(z) * torch.rand_like(z) + x

    near = check_module((f, torch.zeros(2, 4), torch.randn(2, 4)), only=["gradient-exact"])[1]
    assert near.outcome is Outcome.HOLDS
    assert "draws other random numbers" in near.found


@pytest.mark.nightly
def test_half_steps_are_compiled_where_it_is_asked_for():
    (finding,) = check_module(dense(), num_steps=2, only=["compiles"])
    assert finding.outcome is Outcome.HOLDS


def test_what_does_not_compile_falls_short():
    (finding,) = check_module(normalised(), num_steps=2, only=["compiles"])
    assert finding.outcome is Outcome.FALLS_SHORT


def test_what_is_asked_wrongly_is_a_sentence():
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"beta": 1.0}, "must be in"),
        ({"beta": float("nan")}, "must be in"),
        ({"num_steps": 0}, "at least 1"),
        ({"gradient_error": 2.0}, "between 0 and 1"),
        ({"only": ["contraction"]}, "there is no claim"),
        ({"leave_out": CLAIMS}, "leaves no claim"),
    )
    for options, said in wrong:
        with pytest.raises(CheckError, match=said):
            check_module(dense(), **options)


def test_a_claim_that_is_left_out_is_said():
    found = check_module(detached(), leave_out=["derivative"])
    assert {finding.outcome for finding in found} == {Outcome.HOLDS, Outcome.NOTED}
    assert found[-1].text().startswith("derivative noted: left out")


def test_assertions_pass_on_a_right_module_and_say_what_the_check_says_on_a_broken_one():
    for check in (assert_gradient_exact, assert_derivative, assert_contracting, assert_headroom):
        check(*dense())
    assert_replayable(*dense())
    assert_rows_independent(*dense())
    for check, factory, said in (
        (assert_derivative, detached, "derivative falls short: slope"),
        (assert_derivative, unrelated_dtype, "derivative not checked"),
        (assert_gradient_exact, counted, "gradient-exact falls short"),
        (assert_contracting, lambda: imaginary(4.0), "contracting falls short"),
        (assert_replayable, writes_args, "leaves-no-trace falls short"),
        (assert_replayable, counted, "one-map falls short"),
        (assert_rows_independent, normalised, "rows noted"),
    ):
        with pytest.raises(AssertionError, match=said):
            check(*factory())
