"""Cells and layers as torch modules: what they compute, and the usual manners."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from revdeq import (
    Anderson,
    ImplicitAdjoint,
    PeacemanRachford,
    PhantomAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    SolveError,
    UnrolledAdjoint,
    solve,
)
from revdeq.nn import DEQ, Conv, Dense, Monotone, MonotoneDEQ, Transformer


Cases = dict[str, tuple[Callable[..., Any], tuple[int, ...]]]

CELLS: Cases = {
    "dense": (partial(Dense, 8, 5), (3, 5)),
    "dense of sequences": (partial(Dense, 8, activation=nn.ReLU()), (2, 4, 8)),
    "conv": (partial(Conv, 8, 12, groups=4), (2, 8, 5, 6)),
    "transformer": (partial(Transformer, 8, 2), (2, 5, 8)),
    "causal transformer": (partial(Transformer, 8, hidden=8, causal=True), (2, 5, 8)),
    "monotone": (partial(Monotone, 8, 5), (3, 5)),
}


def layer_of(make: Callable[..., Any]) -> Callable[..., DEQ]:
    def made(**options: Any) -> DEQ:
        return DEQ(make(**options))

    return made


LAYERS: Cases = {
    **{name: (layer_of(make), shape) for name, (make, shape) in CELLS.items()},
    "monotone layer": (partial(MonotoneDEQ, 8, 5), (3, 5)),
}


@pytest.mark.parametrize("name", CELLS)
def test_reversible_gradient_of_a_cell_equals_the_unrolled_one(name):
    make, shape = CELLS[name]
    cell = make(dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    gradients = []
    for adjoint in (UnrolledAdjoint(), ReversibleAdjoint()):
        found = solve(cell, cell.start(x), x, solver=Reversible(0.5), adjoint=adjoint, max_steps=4)
        weights = torch.linspace(-1.0, 2.0, found.z1.numel(), dtype=torch.float64).reshape(found.z1.shape)
        gradients.append(torch.autograd.grad((found.z1 * weights).sum(), (x, *cell.parameters())))
    for g, e in zip(*gradients, strict=True):
        assert bool(e.any())
        torch.testing.assert_close(g, e, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_does_not_mix_samples_and_starts_at_zero(name):
    make, shape = CELLS[name]
    cell = make(dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    z = torch.randn_like(cell.start(x))
    assert not bool(cell.start(x).any())
    torch.testing.assert_close(cell(z[:1], x[:1]), cell(z, x)[:1], rtol=1e-12, atol=1e-12)


def test_causal_attention_does_not_look_ahead():
    cell = Transformer(8, 2, causal=True, dtype=torch.float64)
    z, x = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, 4:] += 1.0
    assert torch.equal(cell(z, x)[:, :4], cell(z, changed)[:, :4])
    assert not torch.equal(cell(z, x)[:, 4:], cell(z, changed)[:, 4:])


def test_dropout_draws_one_mask_a_solve_and_none_in_evaluation():
    cell = Transformer(8, dropout=0.5, dtype=torch.float64)
    layer = DEQ(cell, solver=Relaxed(0.5), adjoint=UnrolledAdjoint(), max_steps=4)
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("contraction_constant", [0.3, 0.9])
def test_dense_starts_with_the_contraction_constant_asked_for(contraction_constant):
    cell = Dense(16, contraction_constant=contraction_constant, dtype=torch.float64)
    assert math.isclose(
        float(torch.linalg.matrix_norm(cell.state.weight.detach(), 2)), contraction_constant, rel_tol=1e-12
    )


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_survives_saving_copying_and_pickling(name):
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    expected = layer(x)
    other = make()
    other.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = make()
    loaded.load_state_dict(torch.load(file))
    for twin in (other, loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), expected)
        assert repr(twin) == repr(layer)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_follows_dtype_and_device(name):
    make, shape = LAYERS[name]
    layer = make().to(torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    z1 = layer(x)
    assert z1.dtype == torch.float64
    z1.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in layer.parameters())
    assert all(p.device.type == "meta" for p in make(device="meta").parameters())
    narrow = make(dtype=torch.bfloat16)
    if narrow.rtol is not None:
        narrow.rtol = 0.02  # bfloat16 has 8 bits
    assert narrow(torch.randn(shape, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_layer_says_how_it_solves():
    text = repr(
        DEQ(Dense(4), solver=Anderson(history=3), adjoint=PhantomAdjoint(2, 0.5), max_steps=9, rtol=1e-3, atol=0.0)
    )
    for part in ("Anderson(beta=1.0, history=3", "PhantomAdjoint(steps=2, beta=0.5)", "max_steps=9", "rtol=0.001"):
        assert part in text
    assert "width=4, input_width=4" in text


def test_adjoint_follows_the_solver_unless_given():
    assert isinstance(DEQ(Dense(4)).adjoint, ReversibleAdjoint)
    assert isinstance(DEQ(Dense(4), solver=Anderson()).adjoint, ImplicitAdjoint)
    assert isinstance(MonotoneDEQ(4).solver, PeacemanRachford)


def test_a_plain_function_of_trees_is_solved_from_a_given_start():
    weight = torch.tensor(0.5, requires_grad=True)
    layer = DEQ(
        lambda z, a: {"p": weight * z["p"] + a["x"]}, solver=Relaxed(1.0), adjoint=ImplicitAdjoint(), max_steps=60
    )
    args = {"x": torch.ones(2, 3)}
    solution = layer.solve(args, {"p": torch.zeros(2, 3)})
    torch.testing.assert_close(solution.z1["p"], torch.full((2, 3), 2.0))
    (by_weight,) = torch.autograd.grad(solution.z1["p"].sum(), weight)
    torch.testing.assert_close(by_weight, torch.tensor(24.0), rtol=1e-4, atol=0.0)
    with pytest.raises(TypeError, match="give z0, or give function a method start"):
        layer(args)
    assert torch.equal(DEQ(lambda z, a: 0 * z + a, max_steps=1)(torch.zeros(1, 2)), torch.zeros(1, 2))


def test_a_failed_solve_raises_or_is_told():
    layer = DEQ(
        lambda z, a: 2 * z + a, solver=Relaxed(1.0), adjoint=UnrolledAdjoint(), max_steps=3, rtol=0.0, atol=1e-9
    )
    with pytest.raises(SolveError):
        layer(torch.ones(1, 2))
    layer.throw = False
    assert not layer.solve(torch.ones(1, 2)).result.succeeded


def untyped(kind: Any) -> Any:
    """Return `kind`, to be called as somebody without a type checker would."""
    return kind


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: untyped(DEQ)(3), TypeError, "function is a int"),
        (lambda: untyped(DEQ)(Dense(2), solver="anderson"), TypeError, "solver is 'anderson'"),
        (lambda: untyped(DEQ)(Dense(2), adjoint="implicit"), TypeError, "adjoint is 'implicit'"),
        (lambda: untyped(DEQ)(Dense(2), max_steps=-1), ValueError, "max_steps is -1"),
        (lambda: untyped(DEQ)(Dense(2), rtol=1e-3), ValueError, "give both to stop by tolerance"),
        (lambda: untyped(Dense)(0), ValueError, "width is 0"),
        (lambda: untyped(Dense)(2, 1.5), TypeError, "input_width is 1.5"),
        (lambda: untyped(Dense)(2, contraction_constant=0.0), ValueError, "contraction_constant is 0.0"),
        (lambda: untyped(Conv)(7), ValueError, "groups is 8; it must divide channels = 7"),
        (lambda: untyped(Conv)(8, kernel_size=4), ValueError, "kernel_size is 4; it must be odd"),
        (lambda: untyped(Transformer)(8, 3), ValueError, "heads is 3; it must divide width = 8"),
        (lambda: untyped(Transformer)(8, causal=1), TypeError, "causal is 1"),
        (lambda: untyped(Transformer)(8, dropout=1.0), ValueError, "dropout is 1.0"),
        (lambda: untyped(Monotone)(4, margin=0.0), ValueError, "margin is 0.0"),
        (lambda: untyped(MonotoneDEQ)(4, margin=math.inf), ValueError, "margin is inf"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert str(caught.value).endswith(".")
