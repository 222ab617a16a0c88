"""Cells and layers as torch modules: what they compute, and the usual manners."""

import copy
import gc
import io
import math
import pickle
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from revdeq import (
    GMRES,
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
    "conv of another input": (partial(Conv, 8, groups=4, input_channels=3), (2, 3, 5, 6)),
    "transformer of another input": (partial(Transformer, 8, 2, input_width=5), (2, 5, 5)),
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


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_convolutions_keep_the_size_and_add_no_constant(kernel_size):
    cell = Conv(8, kernel_size=kernel_size)
    assert cell(torch.randn(2, 8, 7, 6), torch.randn(2, 8, 7, 6)).shape == (2, 8, 7, 6)
    # A bias would be taken out again by the normalisations of groups of one channel, and train in vain.
    assert {name for name, _ in cell.named_parameters() if name.startswith("conv")} == {"conv1.weight", "conv2.weight"}
    for convolution in (cell.conv1, cell.conv2):
        assert 0.005 < float(convolution.weight.detach().std()) < 0.02
    assert Conv(8, input_channels=3).input.bias is not None


def test_a_convolution_says_its_sizes():
    assert "input_channels" not in repr(Conv(8)).splitlines()[0] + Conv(8).extra_repr()
    assert Conv(8, 16, input_channels=3).extra_repr() == "channels=8, inner_channels=16, groups=8, input_channels=3"


def test_causal_attention_does_not_look_ahead():
    cell = Transformer(8, 2, causal=True, dtype=torch.float64)
    z, x = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, 4:] += 1.0
    assert torch.equal(cell(z, x)[:, :4], cell(z, changed)[:, :4])
    assert not torch.equal(cell(z, x)[:, 4:], cell(z, changed)[:, 4:])


def padded(x: torch.Tensor, more: int, value: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x with more tokens behind it, and the mask of those."""
    longer = torch.cat([x, x.new_full((x.shape[0], more, x.shape[2]), value)], dim=1)
    return longer, (torch.arange(longer.shape[1]) >= x.shape[1]).expand(longer.shape[:2])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ImplicitAdjoint(solver=GMRES()), UnrolledAdjoint()], ids=repr)
def test_padding_changes_neither_states_nor_steps_nor_gradients(causal: bool, adjoint: Any):
    cell = Transformer(8, 2, input_width=5, causal=causal, dtype=torch.float64)
    layer = DEQ(cell, adjoint=adjoint, max_steps=400, rtol=1e-9, atol=0.0)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    found: list[tuple[torch.Tensor, ...]] = []
    for args in (x, padded(x, 3, 1e6), padded(x, 2, math.nan)):
        solution = layer.solve(args)
        kept = solution.z1[:, :4]
        found.append((kept, solution.num_steps, *torch.autograd.grad(kept.square().sum(), list(cell.parameters()))))
        assert not bool(solution.z1[:, 4:].any())
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("causal", [False, True])
def test_a_sequence_that_is_all_padding_and_one_that_begins_with_it_are_finite(causal: bool):
    cell = Transformer(8, 2, causal=causal)
    x = torch.randn(3, 4, 8, requires_grad=True)
    padding = torch.tensor([[True, True, True, True], [True, True, False, False], [False, False, False, False]])
    z1 = DEQ(cell)((x, padding))
    z1.square().sum().backward()
    assert bool(torch.isfinite(z1).all())
    assert not bool(z1[padding].any())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in cell.parameters())
    assert x.grad is not None
    assert not bool(x.grad[padding].any())


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ((torch.zeros(2, 3, 8), torch.zeros(2, 3)), TypeError, "padding has torch.float32; it must be a bool tensor"),
        ((torch.zeros(2, 3, 8), torch.zeros(3, 2, dtype=torch.bool)), ValueError, r"shape \(3, 2\); .* \(2, 3\)"),
        ((torch.zeros(2, 3, 8),), TypeError, "args is a tuple; it must be the tensor x, or a pair"),
        ({"x": torch.zeros(2, 3, 8)}, TypeError, "args is a dict"),
    ],
)
def test_padding_that_does_not_fit_is_refused(args: Any, error: Any, words: str):
    with pytest.raises(error, match=words):
        DEQ(Transformer(8))(args)


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


def test_the_number_of_steps_follows_the_tolerances_unless_given():
    assert DEQ(Dense(4)).max_steps == 8
    assert DEQ(Dense(4), rtol=1e-3, atol=0.0).max_steps == 100
    assert DEQ(Dense(4), rtol=1e-3, atol=0.0, max_steps=3).max_steps == 3


class Mark:
    """Lives as long as the node of a graph."""


def mark(tensor: torch.Tensor) -> weakref.ref[Mark]:
    node: Any = tensor.grad_fn
    node.metadata["mark"] = sign = Mark()
    return weakref.ref(sign)


def test_the_last_solution_is_kept_without_its_graph():
    encoder, layer = nn.Linear(4, 4), DEQ(Dense(4), name="encoder")
    assert layer.last is None
    x = torch.sin(encoder(torch.randn(3, 4)))
    graph = mark(x)
    z1 = layer(x)
    last = layer.last
    assert last is not None
    assert last.health is not None
    assert last.health.verified is None
    z1.sum().backward()
    assert last.health.verified is True
    assert last.health.layer == "encoder"
    assert DEQ(Dense(4)).name == "Dense"
    expected = (layer.function(z1, x) - z1).norm(dim=1)
    torch.testing.assert_close(last.residual, expected.double(), rtol=1e-3, atol=1e-7)
    assert last.num_steps.tolist() == [8, 8, 8]
    assert torch.equal(last.z1, z1)
    assert not last.z1.requires_grad
    del x, z1, expected
    assert graph() is None
    encoder(torch.randn(3, 4)).sum().backward()
    with torch.no_grad():
        next(layer.parameters()).add_(1.0)
    layer(torch.randn(3, 4))
    assert layer.last is not last


def test_every_solver_and_adjoint_keeps_a_last_solution_without_a_graph():
    for solver in (Reversible(0.5), Anderson()):
        for adjoint in (UnrolledAdjoint(), ImplicitAdjoint(), PhantomAdjoint(2)):
            source = torch.randn(3, 4, requires_grad=True)
            layer = DEQ(lambda z, a: (torch.tanh(0.3 * z + a), a.sum()), solver=solver, adjoint=adjoint, has_aux="last")
            x = torch.sin(source)
            graph = mark(x)
            z1, aux = layer(x)
            assert aux.grad_fn is not None
            del z1, aux, x
            gc.collect()
            assert graph() is None
            last: Any = layer.last
            assert last.aux.grad_fn is None
            assert last.residual.shape == (3,)


def test_what_solve_offers_passes_through():
    def f(z: torch.Tensor, x: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        value = torch.tanh(0.3 * z + x / (1 + step))
        return value, value.square().mean()

    x = torch.randn(3, 4, requires_grad=True)
    layer = DEQ(f, has_aux="sum", with_step=True, batch_dims=0, max_steps=3)
    z1, aux = layer(x)
    same = solve(f, torch.zeros(3, 4), x, has_aux="sum", with_step=True, batch_dims=0, max_steps=3)
    assert torch.equal(z1, same.z1)
    assert torch.equal(aux, same.aux)
    assert layer.solve(x).num_steps.shape == ()
    got, expected = (torch.autograd.grad(a + b.sum(), x)[0] for a, b in ((aux, z1), (same.aux, same.z1)))
    assert torch.equal(got, expected)
    assert all(torch.equal(a, b) for a, b in zip(layer.solve(x, save_at=[1, 3]).saved[1:], (z1,), strict=True))
    for part in ("batch_dims=0", "has_aux='sum'", "with_step=True"):
        assert part in repr(layer)


def test_a_state_dict_of_another_solver_loads_with_a_warning_that_names_both():
    saved = DEQ(Dense(4), solver=Reversible(0.8), max_steps=12).state_dict()
    layer = DEQ(Dense(4), name="head")
    with pytest.warns(UserWarning, match=r"layer head .*beta=0\.8.* max_steps=12.*beta=0\.5.* max_steps=8"):
        layer.load_state_dict(saved)
    torch.testing.assert_close(layer.state_dict(), {**saved, "_extra_state": layer.get_extra_state()})
    with pytest.warns(UserWarning, match="with max_steps=12, and is loaded into one with max_steps=8"):
        nn.Sequential(DEQ(Dense(4), solver=Reversible(0.8))).load_state_dict({f"0.{k}": v for k, v in saved.items()})


@pytest.mark.parametrize("name", LAYERS)
def test_settings_travel_as_a_tensor_and_equal_ones_or_none_load_in_silence(name):
    make, _ = LAYERS[name]
    saved = make().state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    make().load_state_dict(saved)
    make().load_state_dict({key: value for key, value in saved.items() if key != "_extra_state"})
    with torch.device("meta"):
        make().load_state_dict(make().state_dict(), assign=True)
    with pytest.raises(RuntimeError, match="Missing key"):
        make().load_state_dict(dict(list(saved.items())[:-1]))


def test_how_a_layer_differentiates_or_compiles_is_no_setting():
    saved = DEQ(Dense(4), solver=Reversible(0.5, compile=True), throw=False).state_dict()
    DEQ(Dense(4), adjoint=ImplicitAdjoint()).load_state_dict(saved)


def test_an_extra_state_that_is_none_of_ours_is_refused():
    layer = DEQ(Dense(4))
    for state in (torch.tensor([1, 2], dtype=torch.uint8), {"beta": 0.5}, torch.zeros(3)):
        with pytest.raises(ValueError, match=r"holds no solver settings; remove the entry .* from the state dict"):
            layer.set_extra_state(state)


class Keeper(nn.Module):
    """Keeps its last solution, as scripts do."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layer = DEQ(Dense(4), **options)
        self.solution: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.solution = self.layer.solve(torch.sin(x))
        return self.solution.z1


def take_note(health: Any) -> None:
    """Be a callback that can be pickled."""


def through_a_file(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_a_file])
@pytest.mark.parametrize("options", [{}, {"rtol": 1e-3, "atol": 0.0}], ids=["fixed", "tolerance"])
def test_a_module_that_holds_a_solution_and_a_callback_is_copied(copied: Any, options: Any):
    keeper = Keeper(adjoint=ReversibleAdjoint(on_health=take_note), **options)
    x = torch.randn(3, 4, requires_grad=True)
    keeper(x).sum().backward()
    twin = copied(keeper)
    assert torch.equal(twin.solution.z1, keeper.solution.z1)
    assert not twin.solution.z1.requires_grad
    assert twin.solution.health == keeper.solution.health
    last: Any = keeper.layer.last
    assert twin.layer.last.health == last.health
    assert torch.equal(twin(x), keeper(x))
    if options:
        assert torch.equal(copied(keeper).solution.residual, keeper.solution.residual)
        return
    with pytest.raises(RuntimeError, match=r"read Solution\.residual before copying or saving"):
        copied(keeper).solution.residual  # noqa: B018
    known = keeper.solution.residual
    assert torch.equal(copied(keeper).solution.residual, known)


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
        (lambda: untyped(Conv)(4), ValueError, "groups is 8; it must divide channels = 4"),
        (lambda: untyped(Conv)(16, 4), ValueError, "must divide channels = 16 and inner_channels = 4"),
        (lambda: untyped(Conv)(8, kernel_size=4), ValueError, "kernel_size is 4; it must be odd"),
        (lambda: untyped(Transformer)(8, 3), ValueError, "heads is 3; it must divide width = 8"),
        (lambda: untyped(Transformer)(8, causal=1), TypeError, "causal is 1"),
        (lambda: untyped(Transformer)(8, dropout=1.0), ValueError, "dropout is 1.0"),
        (lambda: untyped(DEQ)(Dense(2), rtol="automatic", atol=0.0), TypeError, "rtol is 'automatic'"),
        (lambda: untyped(DEQ)(Dense(2), batch_dims=2), TypeError, "batch_dims is 2"),
        (lambda: untyped(DEQ)(Dense(2), has_aux="first"), ValueError, "has_aux is 'first'"),
        (lambda: untyped(DEQ)(Dense(2), with_step=1), TypeError, "with_step is 1"),
        (lambda: untyped(DEQ)(Dense(2), name=3), TypeError, "name is 3"),
        (lambda: untyped(Monotone)(4, margin=0.0), ValueError, "margin is 0.0"),
        (lambda: untyped(MonotoneDEQ)(4, margin=math.inf), ValueError, "margin is inf"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert str(caught.value).endswith(".")
