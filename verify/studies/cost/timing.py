"""Interleaved timing: what is compared runs in turns, so that a busy machine slows all of it alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """How long one step takes, over the rounds.

    Attributes:
        median: median in seconds.
        low: lower quartile in seconds.
        high: upper quartile in seconds.
        ratio: median over the rounds of this step's time over the first step's in the same round, dimensionless.
        spread: half the distance between the quartiles of these ratios.
    """

    median: float
    low: float
    high: float
    ratio: float
    spread: float


def clocked(
    step: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """A run of `step` that returns its seconds.

    Args:
        step: what to time.
        device: waited for before the clock is read.
        clock: seconds; `time.process_time` leaves out the time that other processes took, for one thread on a CPU.
    """

    def run() -> float:
        _wait(device)
        start = clock()
        step()
        _wait(device)
        return clock() - start

    return run


def interleaved(runs: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, Timing]:
    """Time each run once a round, in turns; the order rotates, so that none always follows the same other.

    Args:
        runs: what to time by name, each returning its seconds, see `clocked`; ratios are to the first.
        rounds: number of rounds, at least 3, after one that warms caches, allocators and compilers up.

    Raises:
        ValueError: rounds < 3, or there is nothing to run.
    """
    if rounds < 3:
        raise ValueError(f"rounds is {rounds}; it must be at least 3, since quartiles are reported.")
    if not runs:
        raise ValueError("runs is empty; give at least one, to which the ratios are taken.")
    names = list(runs)
    _settle_allocator()
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(runs[name]())
    base = seconds[names[0]]
    return {name: _summary(found, base) for name, found in seconds.items()}


def _settle_allocator() -> None:
    """Free a block of 30 MB, after which glibc keeps what is freed instead of handing it back and faulting it in again.

    Otherwise whether a method pays for that depends on what happens to lie above its tensors, in any of the methods.
    """
    torch.zeros(30_000_000, dtype=torch.uint8)


def _summary(seconds: list[float], base: list[float]) -> Timing:
    low, median, high = statistics.quantiles(seconds, n=4)
    lower, ratio, upper = statistics.quantiles([s / b for s, b in zip(seconds, base, strict=True)], n=4)
    return Timing(median, low, high, ratio, (upper - lower) / 2.0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
