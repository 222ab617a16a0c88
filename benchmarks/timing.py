"""Interleaved timing: what is compared runs in turns, so that a busy machine slows all of it alike."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds of one step, over the rounds.

    Attributes:
        median: median in seconds.
        low: lower quartile in seconds.
        high: upper quartile in seconds.
        ratio: median over the rounds of this step's time over the first step's, dimensionless.
    """

    median: float
    low: float
    high: float
    ratio: float


def interleaved(
    steps: dict[str, Callable[[], object]],
    *,
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time each step once a round, in turns; the order rotates, so that none always follows the same other.

    Args:
        steps: what to time by name; ratios are to the first.
        rounds: number of rounds, at least 3.
        device: waited for before the clock is read.
        clock: seconds; `time.process_time` leaves out the time that other processes took, for one thread on a CPU.
    """
    if rounds < 3:
        raise ValueError(f"rounds is {rounds}; it must be at least 3, since medians are reported.")
    names = list(steps)
    for _ in range(2):  # caches, allocators and compilers warm up
        for step in steps.values():
            step()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            _wait(device)
            start = clock()
            steps[name]()
            _wait(device)
            seconds[name].append(clock() - start)
    base = seconds[names[0]]
    return {name: _summary(found, base) for name, found in seconds.items()}


def _summary(seconds: list[float], base: list[float]) -> Timing:
    low, median, high = statistics.quantiles(seconds, n=4)
    return Timing(median, low, high, statistics.median(s / b for s, b in zip(seconds, base, strict=True)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
