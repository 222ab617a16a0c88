"""What torch returns in each dtype and on each device, beside the truth of the problem that the dtype stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verify.certificate.kernel.numbers import packed
from verify.certificate.kernel.problem import Proved
from verify.certificate.proof import known_gradient
from verify.certificate.settings import Settings
from verify.certificate.source import Source
from verify.certificate.stages import Part, Task, fixed_point_part, n_step_part
from verify.certificate.stored import as_stored_in
from verify.certificate.torch_run import AdjointName, TorchRun, TorchRunError, dtype_name, run_in_torch
from verify.reference.graph import Traced


Timed = Callable[[str, Callable[[], Any]], Any]
"""Runs a stage under its name and keeps its time."""

STORED_BITS = {torch.float64: 53, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}


@dataclass
class Truth:
    """A problem, and what was proved of it.

    Attributes:
        stored_as: the dtype that stores it so, "" for the problem as it was given.
        task: the problem.
        fixed: the fixed point and the implicit gradient.
        steps: the N steps and their gradient.
    """

    stored_as: str
    task: Task
    fixed: Part
    steps: Part


class TorchComparison:
    """Runs torch, and proves what each run is held to.

    Args:
        settings: dtypes, devices, beta and N.
        timed: runs a stage under its name.
        make_task: a task from the function at a problem's values.
        main: the problem as it was given.

    Attributes:
        measured: what torch returned, {"dtype", "device", "adjoint", "stored", "truth", "kind", "z", "gradient"}.
        not_run: what could not be had, and why.
        truths: the problems, the given one first.
    """

    def __init__(self, settings: Settings, timed: Timed, make_task: Callable[[Traced, str], Task], main: Truth) -> None:
        self._settings, self._timed, self._make_task = settings, timed, make_task
        self.measured: list[dict[str, Any]] = []
        self.not_run: list[dict[str, str]] = []
        self.truths = [main]

    def run(
        self,
        source: Source,
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
        constant: float,
    ) -> None:
        """Compare every dtype on every device.

        Args:
            source: the problem as the user has it.
            cotangents: dL/dz_N and dL/dy_N by state leaf.
            constant: contraction constant, for the starting precision of another dtype's truth.
        """
        main = self.truths[0]
        traced = main.task.traced
        for dtype in self._runs(traced):
            stored, name = as_stored_in(source, traced, dtype), dtype_name(dtype)
            number = 0
            if stored is not traced:
                # The dtype rounds the inputs, so its run poses another problem, which gets its own truth.
                work = f"enclosing the problem as {name} stores it"
                self.truths.append(self._timed(work, lambda s=stored, n=name: self._truth(s, n, main, constant)))
                number = len(self.truths) - 1
            for device in self._settings.devices:
                if device != "cpu" and not _is_there(device):
                    self.not_run.append({"what": f"{name} on {device}", "why": "there is no such device here"})
                    continue
                self._compare(source, dtype, device, number, cotangents)

    def _truth(self, stored: Traced, name: str, main: Truth, constant: float) -> Truth:
        task = self._make_task(stored, name)
        # No more digits are needed than float64 shows, with 2^-10 to spare.
        settings = replace(self._settings, digits=task.problem.digits)
        foreign = any(part.proved is not None and part.proved.torch is not None for part in (main.fixed, main.steps))
        fixed = main.fixed.enclosure and fixed_point_part(task, settings, main=False, with_torch=foreign)
        steps = n_step_part(task, settings, constant, with_torch=foreign)
        return Truth(name, task, fixed or Part(steps.function), steps)

    def _runs(self, traced: Traced) -> tuple[torch.dtype | None, ...]:
        """The dtypes asked for; and None, everything as given, where the user's own tensors are of several."""
        own = _floating_dtypes(traced)
        return (*self._settings.dtypes, None) if self._settings.dtypes and len(own) > 1 else self._settings.dtypes

    def _compare(
        self,
        source: Source,
        dtype: torch.dtype | None,
        device: str,
        number: int,
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    ) -> None:
        truth, name = self.truths[number], dtype_name(dtype)
        traced = truth.task.traced
        adjoints: list[tuple[AdjointName, str, Part]] = [
            ("reversible", "n_step", truth.steps),
            ("implicit", "fixed_point", truth.fixed),
        ]
        for adjoint, kind, part in adjoints:
            what = f"{name} {adjoint} on {device}"
            if part.proved is None or part.proved.gradient is None:
                self.not_run.append({"what": what, "why": "its truth was not certified"})
                continue
            if not part.proved.truth:
                self.not_run.append({"what": what, "why": _nothing_known(part.proved)})
                continue
            try:
                run: TorchRun = self._timed(
                    "running torch",
                    lambda adjoint=adjoint: run_in_torch(
                        source,
                        traced,
                        dtype,
                        device,
                        self._settings.beta,
                        self._settings.num_steps,
                        cotangents,
                        adjoint,
                    ),
                )
            except TorchRunError as error:
                self.not_run.append({"what": what, "why": str(error)})
                continue
            if part.proved.torch is None and part.proved.unknown:
                left_out = ", ".join(part.proved.unknown)
                self.not_run.append({"what": f"{what}, by {left_out}", "why": "its truth is not known there"})
            self._keep(run, device, self._bits(traced, dtype), number, kind, part.proved)

    def _bits(self, traced: Traced, dtype: torch.dtype | None) -> int:
        kinds = _floating_dtypes(traced) if dtype is None else {dtype}
        return min(STORED_BITS.get(kind, 0) for kind in kinds)

    def _keep(self, run: TorchRun, device: str, stored: int, number: int, kind: str, proved: Proved) -> None:
        wanted = known_gradient(proved, self.truths[number].task.problem.state)
        self.measured.append(
            {
                "dtype": run.dtype,
                "device": device,
                "adjoint": run.adjoint,
                "stored": stored,
                "truth": number,
                "kind": kind,
                "z": packed(run.z.ravel().tolist()),
                "gradient": {name: packed(run.gradient[name].ravel().tolist()) for name in wanted},
            }
        )


def _nothing_known(proved: Proved) -> str:
    return "f stands on a kink there" if proved.unknown else "it has no leaf but the start"


def _floating_dtypes(traced: Traced) -> set[torch.dtype]:
    return {tensor.dtype for tensor in traced.values.values() if tensor.is_floating_point()}


def _is_there(device: str) -> bool:
    kind = device.partition(":")[0]
    return kind == "cuda" and torch.cuda.is_available()
