"""The official JAX library beside us: a process in its own environment that takes its steps in turns with ours."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from verify.studies.cost import Workload


FLOOR = "JAX floor, jitted"
STEP = "JAX library revdeq, jitted"


class JaxPeer:
    """A process that holds the same problem, weights included, in JAX.

    Args:
        interpreter: Python of an environment with jax, equinox and the JAX package revdeq.
        workload: what both solve.
        threads: threads of XLA, by binding the process to as many processors.
        clock: "wall" or "process".
    """

    def __init__(self, interpreter: str, workload: Workload, *, threads: int, clock: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        problem, self._results = (Path(self._folder.name) / name for name in ("problem.npz", "results.npz"))
        np.savez(problem, **_problem_of(workload))
        script = Path(__file__).with_name("jax_step.py")
        # PYTHONPATH may lead to the PyTorch package, which has the same name.
        surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [interpreter, str(script), str(problem), str(self._results), clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=surroundings,
            preexec_fn=lambda: _bind(threads),
        )
        self.said: dict[str, Any] = json.loads(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def runs(self) -> dict[str, Callable[[], float]]:
        """The floor and the training step in JAX, each returning its seconds."""
        return {FLOOR: lambda: self._ask("floor"), STEP: lambda: self._ask("step")}

    def differences(self, z1: Tensor, gradients: tuple[Tensor, ...], workload: Workload) -> dict[str, float]:
        """Relative differences in the 2-norm between our results and JAX's, for the state and for each gradient.

        Args:
            z1: our final state.
            gradients: ours, in the order of `Workload.sources`.
            workload: what both solved.
        """
        ours = {"z1": z1} | dict(zip(_sources(workload), gradients, strict=True))
        with np.load(self._results) as theirs:
            if set(theirs) != set(ours):
                raise RuntimeError(f"JAX returned {sorted(theirs)} where {sorted(ours)} was expected.")
            return {name: _difference(ours[name], torch.from_numpy(theirs[name])) for name in theirs}

    def _ask(self, what: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the process of the JAX library ended with status {self._process.wait()}; its message stands above. "
                "benchmarks/README.md says what its environment needs."
            )
        return line


def _problem_of(workload: Workload) -> dict[str, Any]:
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in _sources(workload).items()}
    sizes = {"heads": workload.cell.heads, "num_steps": workload.num_steps, "beta": workload.beta}
    return arrays | sizes | {"cotangent": workload.cotangent.cpu().numpy()}


def _sources(workload: Workload) -> dict[str, Tensor]:
    return {"x": workload.x} | dict(workload.cell.named_parameters())


def _difference(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double().cpu(), b.double()
    return float((a - b).norm() / b.norm())


def _bind(threads: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
