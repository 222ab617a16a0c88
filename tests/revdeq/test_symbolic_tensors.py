"""Tensors that have shapes and no values: fake ones, those of the meta device, and those of an export."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from revdeq import Anderson, CheckpointedAdjoint, ImplicitAdjoint, PeacemanRachford, Reversible
from revdeq.nn import DEQ, Conv, Dense, Monotone, MonotoneDEQ, Transformer


LAYERS: dict[str, tuple[Callable[..., DEQ], tuple[int, ...]]] = {
    "dense": (lambda **more: DEQ(Dense(6, **more)), (3, 6)),
    "transformer with dropout": (lambda **more: DEQ(Transformer(8, 2, dropout=0.2, **more)), (3, 5, 8)),
    "convolution": (lambda **more: DEQ(Conv(8, **more)), (3, 8, 5, 5)),
    "accelerated": (lambda **more: DEQ(Dense(6, **more), solver=Anderson(), adjoint=ImplicitAdjoint()), (3, 6)),
    "checkpointed": (lambda **more: DEQ(Dense(6, **more), adjoint=CheckpointedAdjoint()), (3, 6)),
    "compiled": (lambda **more: DEQ(Dense(6, **more), solver=Reversible(0.5, compile=True)), (3, 6)),
    "monotone": (lambda **more: DEQ(Monotone(6, **more), solver=PeacemanRachford(1.0), max_steps=9), (3, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_shapes_go_through_forward_and_backward(name: str, kind: str):
    make, shape = LAYERS[name]
    state = torch.get_rng_state()
    if kind == "meta":
        layer, x = make(device="meta"), torch.empty(shape, device="meta", requires_grad=True)
        z1 = layer(x)
        z1.sum().backward()
    else:
        with FakeTensorMode():
            layer, x = make(), torch.empty(shape, requires_grad=True)
            z1 = layer(x)
            z1.sum().backward()
    assert z1.shape == shape
    assert x.grad is not None
    assert all(p.grad is not None and p.grad.shape == p.shape for p in layer.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Model(nn.Module):
    """A layer, a solve, a layer."""

    def __init__(self, layer: DEQ, width: int) -> None:
        super().__init__()
        self.inject, self.layer, self.head = nn.Linear(width, width), layer, nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.inject(x)))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_model_in_evaluation_mode_is_exported(name: str, dynamic: bool):
    make, shape = LAYERS[name]
    layer = make()
    model = Model(DEQ(layer.function, solver=layer.solver, max_steps=layer.max_steps), shape[-1]).eval()
    if name == "compiled":
        model.layer.solver = Reversible(0.5)
    x = torch.randn(shape)
    with torch.no_grad():
        expected = model(x), model(torch.cat([x, x]))
    model.layer = layer.eval()
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic else None)
    assert torch.equal(exported.module()(x), expected[0])
    if dynamic:
        torch.testing.assert_close(exported.module()(torch.cat([x, x])), expected[1])
    assert layer.last is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MonotoneDEQ(6), "rtol and atol are given, which goes by the values of states, and these have none"),
        (lambda: DEQ(Dense(6), solver=Reversible("auto")), "beta is 'auto', which goes by the values"),
    ],
    ids=["tolerance", "automatic"],
)
def test_what_goes_by_values_is_refused(make: Any, said: str):
    with FakeTensorMode(), pytest.raises(ValueError, match=said):
        make()(torch.randn(3, 6))
    layer, x = make().eval(), torch.randn(3, 6)
    with pytest.raises(ValueError, match=said):
        torch.export.export(layer, (x,))
