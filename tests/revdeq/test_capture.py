"""A fixed number of steps does nothing that the capture of a CUDA graph forbids, and what is recorded can be replayed.

No device is needed here. The rules of a capture are held against a solve on the meta device, whose tensors have no
values; and a recorder on the CPU does what a CUDA graph does: it repeats the operations on the same memory, without
Python, once the inputs in it are others.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from revdeq import (
    GMRES,
    Anderson,
    Broyden,
    CheckpointedAdjoint,
    ForwardBackward,
    GradientError,
    ImplicitAdjoint,
    PeacemanRachford,
    PhantomAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)
from revdeq.nn import Monotone


STEPS = 4
REVERSIBLE = [
    Reversible(0.8),
    Reversible(0.5, state_dtype=torch.float64),
    Reversible(0.75, arithmetic="bitwise"),
    Reversible(0.8, arithmetic="bitwise"),
    Reversible("adaptive"),
    Reversible(((0.5, 0.7),) * STEPS),
]
SOLVERS = [*REVERSIBLE, Relaxed(0.5), Anderson(), Broyden(), PeacemanRachford(), ForwardBackward(0.3)]
KEEP_A_GRAPH = [UnrolledAdjoint(), CheckpointedAdjoint(2), PhantomAdjoint(2)]
IMPLICIT = ImplicitAdjoint(solver=GMRES(), rtol=0.0, max_steps=2, throw=False)
PAIRS = [
    *((solver, adjoint) for solver in SOLVERS for adjoint in (*KEEP_A_GRAPH, IMPLICIT)),
    *((solver, ReversibleAdjoint()) for solver in REVERSIBLE),
]

FROM_THE_HOST = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy}
CHECKS = {torch.ops.aten._linalg_check_errors.default}


class Forbidden(RuntimeError):
    """An operation that a capture does not allow."""


class _Made(TorchFunctionMode):
    """Refuses tensors made of Python numbers: on a device that is a copy from memory which is not pinned."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FROM_THE_HOST:
            raise Forbidden(f"{func.__name__} copies from the host")
        return func(*args, **(kwargs or {}))


class _Run(TorchDispatchMode):
    """Refuses operations that read a value, have a shape that depends on values, or go from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        if tags.intersection(func.tags) or func in CHECKS:
            raise Forbidden(f"{func} reads from the device")
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            devices = {item.device for item in (*args, result) if isinstance(item, torch.Tensor)}
            if len(devices) > 1:
                raise Forbidden(f"{func} copies between {devices}")
        return result


@contextlib.contextmanager
def rules_of_a_capture() -> Generator[None]:
    with _Made(), _Run():
        yield


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revdeq.function.surroundings.Surroundings.capturing", True)


@pytest.mark.usefixtures("capturing")
@pytest.mark.parametrize(("solver", "adjoint"), PAIRS, ids=repr)
@pytest.mark.parametrize("differentiated", [True, False])
def test_fixed_steps_do_nothing_that_a_capture_forbids(solver: Any, adjoint: Any, differentiated: bool):
    with torch.device("meta"):
        cell, x = Monotone(4, 3), torch.randn(2, 3, requires_grad=True)
        z0 = cell.start(x)
    with rules_of_a_capture(), torch.set_grad_enabled(differentiated):
        found = solve(cell, z0, x, solver=solver, adjoint=adjoint, max_steps=STEPS, throw=False)
        assert found.z1.device.type == found.num_steps.device.type == found.sample_results.device.type == "meta"
        if differentiated and adjoint in KEEP_A_GRAPH:
            grads = torch.autograd.grad(found.z1.sum(), (x, *cell.parameters()))
            assert {grad.device.type for grad in grads} == {"meta"}


def test_rules_of_a_capture_are_enforced():
    meta = torch.ones(2, 2, device="meta")
    breaches = [
        lambda: torch.tensor([1.0], device="meta"),
        lambda: meta.nonzero(),
        lambda: meta[meta > 0],
        lambda: torch.linalg.lu_factor(meta),
        lambda: torch.linalg.solve(meta, meta),
        lambda: torch.ones(2, 2).to("meta"),
        lambda: meta.copy_(torch.ones(2, 2)),
        lambda: torch.ones(()).item(),
        lambda: bool((torch.ones(2) > 0).any()),
    ]
    for breach in breaches:
        with rules_of_a_capture(), pytest.raises(Forbidden):
            breach()
    with rules_of_a_capture():
        torch.linalg.lu_factor_ex(meta @ meta + torch.zeros(2, 2, device="meta"))


class Recorder(TorchDispatchMode):
    """Records operations with the memory that they read and write, and repeats them there."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self._calls:
            again = func(*args, **kwargs)
            pairs = zip(_listed(result), _listed(again), strict=True)
            for before, now in pairs:
                if isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr():
                    before.copy_(now)


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def outcome(cell: Any, x: torch.Tensor, solver: Any, adjoint: Any, *, backward: bool) -> list[torch.Tensor]:
    found = solve(cell, cell.start(x), x, solver=solver, adjoint=adjoint, max_steps=STEPS, throw=False)
    results = [found.z1, found.residual, found.sample_results, found.num_steps]
    if backward:
        results += torch.autograd.grad(found.z1.square().sum(), (x, *cell.parameters()))
    return results


@pytest.mark.usefixtures("capturing")
@pytest.mark.parametrize(("solver", "adjoint"), PAIRS, ids=repr)
def test_recorded_fixed_steps_are_replayed_on_new_data(solver: Any, adjoint: Any):
    torch.manual_seed(0)
    cell, x = Monotone(4, 3), torch.randn(2, 3, requires_grad=True)
    backward = adjoint in KEEP_A_GRAPH
    with Recorder() as recorder:
        recorded = outcome(cell, x, solver, adjoint, backward=backward)
    first = [tensor.clone() for tensor in recorded]
    recorder.replay()
    assert all(torch.equal(a, b) for a, b in zip(recorded, first, strict=True))
    with torch.no_grad():
        x.copy_(3 * torch.randn(2, 3))
        for parameter in cell.parameters():
            parameter.mul_(1.25)
    recorder.replay()
    wanted = outcome(cell, x, solver, adjoint, backward=backward)
    assert all(torch.equal(a, b) for a, b in zip(recorded, wanted, strict=True))
    assert not torch.equal(recorded[0], first[0])


def test_replay_shows_a_decision_that_python_took():
    x = torch.ones(2)
    with Recorder() as recorder:
        y = x * 2 if float(x.sum()) > 0 else x * 3
    x.neg_()
    recorder.replay()
    assert not torch.equal(y, x * 3)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint(), IMPLICIT], ids=repr)
@pytest.mark.usefixtures("capturing")
def test_random_numbers_are_refused_while_a_graph_is_captured(dropout: float, adjoint: Any):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, requires_grad=True)

    def attend(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return 0.1 * nn.functional.scaled_dot_product_attention(z, a, z + a, dropout_p=dropout)

    def drop(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.1 * nn.functional.dropout(z, dropout) + a)

    for function in (attend, drop):
        expected: Any = contextlib.nullcontext()
        if dropout:
            expected = pytest.raises(ValueError, match=r"draws random numbers .* CUDA graph .* \.eval\(\)")
        with expected:
            solve(function, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=2, throw=False)


def test_what_reads_is_refused_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch):
    cell, x = Monotone(4, 3), torch.randn(2, 3, requires_grad=True)

    def z1(throw: bool) -> torch.Tensor:
        return solve(
            cell, cell.start(x), x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2, throw=throw
        ).z1

    before = z1(throw=False)
    monkeypatch.setattr("revdeq.function.surroundings.Surroundings.capturing", True)
    with pytest.raises(ValueError, match=r"throw=True reads .* CUDA graph .* give throw=False"):
        z1(throw=True)
    with pytest.raises(GradientError, match=r"a CUDA graph is being captured.*UnrolledAdjoint"):
        before.sum().backward()
