"""Two gloo processes: DDP and FSDP2 round the model, and FSDP2 inside f, which is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from revdeq import GradientError, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


class Model(nn.Module):
    """Linear, solve, linear."""

    def __init__(self, adjoint: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.Linear(4, 4).double(), nn.Linear(4, 2).double()
        self.adjoint = adjoint

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = solve(
            lambda z, a: torch.tanh(0.4 * self.cell(z) + a),
            torch.zeros_like(x),
            x,
            solver=Reversible(0.8),
            adjoint=self.adjoint,
            max_steps=3,
        )
        return self.head(found.z1)


def data() -> torch.Tensor:
    return torch.linspace(-1.0, 1.0, 16, dtype=torch.float64).reshape(4, 4)


def work(rank: int, meeting: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        return {"ddp": ddp(rank), "fsdp round": fsdp_round(rank), "fsdp inside": fsdp_inside(rank)}
    finally:
        distributed.destroy_process_group()


def ddp(rank: int) -> list[list[float]]:
    model = nn.parallel.DistributedDataParallel(Model(ReversibleAdjoint()))
    for _ in range(2):  # the second pass would stop if the first had left a reduction unfinished
        model.zero_grad()
        model(data()[2 * rank : 2 * rank + 2]).square().mean().backward()
    return [p.grad.flatten().tolist() for p in model.parameters() if p.grad is not None]


def fsdp_round(rank: int) -> list[list[float]]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model: Any = Model(ReversibleAdjoint())
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    model(data()[2 * rank : 2 * rank + 2]).square().mean().backward()
    return [p.grad.full_tensor().flatten().tolist() for p in model.parameters()]


def fsdp_inside(rank: int) -> str:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Model(ReversibleAdjoint())
    fully_shard(model.cell, mesh=init_device_mesh("cpu", (2,)))
    try:
        model(data()[2 * rank : 2 * rank + 2])
    except GradientError as error:
        return str(error)
    return "not refused"


def answers(folder: Path) -> dict[tuple[int, str], Any]:
    """Return what the two processes found, by rank and name; each runs this file, and one that dies fails the test."""
    commands = [[sys.executable, __file__, str(rank), str(folder / "meeting")] for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        printed = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    found = [json.loads(text.splitlines()[-1]) for text in printed]
    return {(rank, name): value for rank in range(2) for name, value in found[rank].items()}


@pytest.mark.skipif(torch.__version__ < "2.13", reason="FSDP2 of torch 2.6 does not run on the CPU")
def test_two_processes_get_the_gradients_of_the_whole_batch_and_sharding_inside_is_refused(tmp_path: Path):
    found = answers(tmp_path)
    whole = Model(UnrolledAdjoint())
    whole(data()).square().mean().backward()
    want = [p.grad.flatten() for p in whole.parameters() if p.grad is not None]
    for rank in range(2):
        for kind in ("ddp", "fsdp round"):
            got = found[rank, kind]
            assert len(got) == len(want) == 4
            for g, w in zip(got, want, strict=True):
                torch.testing.assert_close(torch.tensor(g, dtype=torch.float64), w, rtol=1e-11, atol=1e-13)
        assert "apply fully_shard or DDP to the module that calls solve" in found[rank, "fsdp inside"]


if __name__ == "__main__":
    print(json.dumps(work(int(sys.argv[1]), sys.argv[2])))
