"""A fixed number of steps never waits for the device forward, and not once a step backward, with any pair."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from revdeq import (
    GMRES,
    Anderson,
    Broyden,
    CheckpointedAdjoint,
    ForwardBackward,
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


READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
}
REVERSIBLE = [Reversible(0.8), Reversible(0.75, arithmetic="bitwise")]
SOLVERS = [*REVERSIBLE, Relaxed(0.5), Anderson(), Broyden(), PeacemanRachford(), ForwardBackward(0.3)]
# The adjoint equation stops by tolerance: it reads the residual once a step of its own, whatever the solve took.
IMPLICIT = ImplicitAdjoint(solver=GMRES(), rtol=0.0, max_steps=2, throw=False)


class Reads(TorchDispatchMode):
    """Counts what hands a value of a tensor to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The states of generators, which are of bytes, lie on the host.
        self.count += func in READS and args[0].dtype != torch.uint8
        return func(*args, **(kwargs or {}))


def reads_of(solver: Any, adjoint: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return how often a forward and a backward pass read."""
    torch.manual_seed(0)
    cell, x = Monotone(4, 3), torch.randn(2, 3, requires_grad=True)
    counts: list[int] = []
    original = torch.Tensor.tolist
    with monkeypatch.context() as patch:
        reads = Reads()

        def tolist(tensor: torch.Tensor) -> Any:  # it does not pass the dispatcher
            reads.count += 1
            return original(tensor)

        patch.setattr(torch.Tensor, "tolist", tolist)
        with reads:
            found = solve(cell, cell.start(x), x, solver=solver, adjoint=adjoint, max_steps=steps, throw=False)
            counts.append(reads.count)
            found.z1.sum().backward()
            counts.append(reads.count - counts[0])
    return counts[0], counts[1]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_no_value_is_read_by_the_adjoint_that_judges_nothing(solver: Any, monkeypatch: pytest.MonkeyPatch):
    assert reads_of(solver, UnrolledAdjoint(), 4, monkeypatch) == (0, 0)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_an_evaluation_that_checkpoints_repeat_is_compared_once(solver: Any, monkeypatch: pytest.MonkeyPatch):
    forward, backward = reads_of(solver, CheckpointedAdjoint(2), 4, monkeypatch)
    assert forward == 0
    assert backward <= 4 * 2


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        (solver, adjoint)
        for solver in REVERSIBLE
        for adjoint in (ReversibleAdjoint(), ReversibleAdjoint(segment=1), ReversibleAdjoint(verify=False))
    ]
    + [(solver, adjoint) for solver in SOLVERS for adjoint in (IMPLICIT, PhantomAdjoint(2))],
    ids=repr,
)
def test_reads_of_a_backward_pass_do_not_grow_with_the_steps(
    solver: Any, adjoint: Any, monkeypatch: pytest.MonkeyPatch
):
    few, many = (reads_of(solver, adjoint, steps, monkeypatch) for steps in (2, 5))
    assert few[0] == many[0] == 0
    assert 0 < few[1] == many[1]


def test_segments_are_compared_once_each(monkeypatch: pytest.MonkeyPatch):
    counts = [reads_of(Reversible(0.5), ReversibleAdjoint(segment=2), steps, monkeypatch) for steps in (2, 4, 8)]
    assert [forward for forward, _ in counts] == [0, 0, 0]
    assert counts[2][1] - counts[1][1] == 2 * (counts[1][1] - counts[0][1]) == 2


def test_reads_are_seen(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    with Reads() as reads:
        bool(torch.ones(1) > 0)
        torch.ones(2).max().item()
    assert reads.count == 2
