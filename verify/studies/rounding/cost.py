"""What each mode keeps and how long it takes against the number of steps, on one layer, in one run."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from revdeq import GradientError
from verify.result import Curve
from verify.studies.rounding.errors import STEPS_NAME
from verify.studies.rounding.modes import MODES, Mode, ModeName, gradients, run
from verify.trial.memory import Allocations


COMPARED: tuple[ModeName, ...] = ("floating", "wide", "bitwise", "checkpointed", "unrolled")
LAYER = "dense layer"
SAMPLES, WIDTH = 32, 64
DTYPE = torch.float32

KEPT_NAME = "bytes kept between forward and backward"
PEAK_NAME = "most bytes alive at once, forward and backward"
TIME_NAME = "time of forward and backward over that of the floating mode"


class PeakAllocations(Allocations):
    """Also remembers the most bytes that were alive at once, of the storages that operations returned.

    What a kernel allocates and frees inside one operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and take note of what is alive after it."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self._seen = {key: held for key, held in self._seen.items() if not held[0].expired()}
        self.peak = max(self.peak, self.alive())
        return result


def cost_curves(betas: Sequence[float], steps: Sequence[int], repeats: int) -> Iterator[Curve]:
    """Measure bytes and time of tanh(z W^T + b), float32, SAMPLES samples of WIDTH numbers.

    Args:
        betas: relaxation parameters with a bitwise form.
        steps: numbers of steps N, increasing.
        repeats: times that each mode is run, in turn, for the median of its time.

    Yields:
        For every mode "mode-bytes" (kept between the passes), "mode-peak" (most alive at once; both counted, the same
        in every run) and "mode-time", the ratio to the floating mode in the same run. NaN stands where backward refused
        numbers that had overflowed, as reversal in float32 does after many steps.
    """
    for beta in betas:
        modes = [MODES[name] for name in COMPARED]
        bytes_of = {mode.name: [_bytes(mode, beta, n) for n in steps] for mode in modes}
        seconds = [_seconds(modes, beta, n, repeats) for n in steps]
        for mode in modes:
            ratios = [of[mode.name] / of["floating"] for of in seconds]
            yield _curve(mode, beta, "mode-bytes", KEPT_NAME, steps, [kept for kept, _ in bytes_of[mode.name]])
            yield _curve(mode, beta, "mode-peak", PEAK_NAME, steps, [peak for _, peak in bytes_of[mode.name]])
            yield _curve(mode, beta, "mode-time", TIME_NAME, steps, ratios)


def _layer() -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """z0, (W, b) with the norm of W about .8, and the cotangents; always the same numbers."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH, generator=generator) * 0.4 / WIDTH**0.5
    bias = torch.randn(WIDTH, generator=generator)
    z0 = torch.randn(SAMPLES, WIDTH, generator=generator)
    cotangents = torch.randn(SAMPLES, WIDTH, generator=generator), torch.randn(SAMPLES, WIDTH, generator=generator)
    return z0.to(DTYPE), (weight.to(DTYPE).requires_grad_(), bias.to(DTYPE).requires_grad_()), cotangents


def _function(z: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
    return torch.tanh(torch.nn.functional.linear(z, *args))


def _bytes(mode: Mode, beta: float, num_steps: int) -> tuple[float, float]:
    """Bytes kept between the passes, and the most alive at once in both together, NaN where backward refused."""
    z0, args, cotangents = _layer()
    allocations = PeakAllocations()
    with allocations:
        solution = run(mode, beta, num_steps, _function, z0, args)
        states = [solution.z1, cast(Tensor, solution.y1)]
        # A young reference cycle would count until the collector finds it.
        gc.collect(1)
        kept = allocations.alive()
        try:
            torch.autograd.grad(states, list(args), list(cotangents))
        except GradientError:
            return float(kept), math.nan
    return float(kept), float(allocations.peak)


def _seconds(modes: Sequence[Mode], beta: float, num_steps: int, repeats: int) -> dict[ModeName, float]:
    """Median time of each mode, which take turns on a busy machine; NaN where backward refused."""
    z0, args, cotangents = _layer()
    leaves: dict[str, Tensor] = {"W": args[0], "b": args[1]}
    times: dict[ModeName, list[float]] = {mode.name: [] for mode in modes}
    # The first round warms caches and is not counted.
    for turn in range(repeats + 1):
        for mode in modes:
            begun = time.perf_counter()
            found = gradients(mode, beta, num_steps if turn else 1, _function, z0, args, leaves, cotangents)
            if turn:
                times[mode.name].append(math.nan if found is None else time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in times.items()}


def _curve(mode: Mode, beta: float, name: str, y_name: str, x: Sequence[int], y: Sequence[float]) -> Curve:
    return Curve(
        name=name,
        problem=LAYER,
        solver="reversible",
        adjoint=mode.name,
        beta=beta,
        dtype=str(DTYPE).removeprefix("torch."),
        state_dtype=str(mode.state_dtype(DTYPE)).removeprefix("torch."),
        device="cpu",
        x_name=STEPS_NAME,
        y_name=y_name,
        x=tuple(map(float, x)),
        y=tuple(y),
    )
