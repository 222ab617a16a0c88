"""What torch returns in each dtype and on each device, beside the truth of the problem that the dtype stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verify.certificate.bits import BitsRight, all_bits_right, bits_right, worst_of
from verify.certificate.certificate import LeafBits
from verify.certificate.settings import Settings
from verify.certificate.source import Source
from verify.certificate.stages import FixedPointStage, StepsStage, fixed_point_stage, n_step_stage
from verify.certificate.stored import as_stored_in
from verify.certificate.torch_run import AdjointName, TorchRunError, dtype_name, run_in_torch
from verify.reference.arithmetic import Array
from verify.reference.graph import Traced


Timed = Callable[[str, Callable[[], Any]], Any]
"""Runs a stage under its name and keeps its time."""

STORED_BITS = {torch.float64: 53, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}


class TorchComparison:
    """Runs torch and counts the bits it gets right.

    Args:
        settings: dtypes, devices, beta and N.
        timed: runs a stage under its name.

    Attributes:
        rows: one for each leaf of each result.
        not_run: what could not be had, and why.
        truths: what was proved of each problem that a dtype stores otherwise than the recorded one: its name, the
            function at those values, the fixed point's part, the steps' part.
    """

    def __init__(self, settings: Settings, timed: Timed) -> None:
        self._settings = settings
        self._timed = timed
        self.rows: list[LeafBits] = []
        self.not_run: list[dict[str, str]] = []
        self.truths: list[tuple[str, Traced, FixedPointStage, StepsStage]] = []

    def run(
        self,
        source: Source,
        traced: Traced,
        fixed: FixedPointStage,
        steps: StepsStage,
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
        constant: float,
    ) -> None:
        """Compare every dtype on every device.

        Args:
            source: the problem as the user has it.
            traced: the same, recorded.
            fixed: truth of the implicit gradient at the stored values.
            steps: truth of the N-step gradient, likewise.
            cotangents: dL/dz_N and dL/dy_N by state leaf.
            flat: the same, flat.
            constant: contraction constant, for the starting precision of another dtype's truth.
        """
        settings = self._settings
        for dtype in self._runs(traced):
            stored = as_stored_in(source, traced, dtype)
            name = dtype_name(dtype)
            if stored is traced:
                truths = fixed, steps
            else:
                # The dtype rounds the inputs, so its run poses another problem, which gets its own truth.
                truths = self._timed(
                    f"enclosing the problem as {name} stores it",
                    lambda stored=stored: (
                        fixed
                        if fixed.enclosure is None
                        else fixed_point_stage(stored, _looser(settings), flat[0] + flat[1], with_contraction=False),
                        n_step_stage(stored, _looser(settings), flat, constant),
                    ),
                )
                self.truths.append((name, stored, *truths))
            for device in settings.devices:
                if device != "cpu" and not _is_there(device):
                    self.not_run.append({"what": f"{name} on {device}", "why": "there is no such device here"})
                    continue
                self._compare(source, stored, dtype, device, truths, cotangents)

    def _runs(self, traced: Traced) -> tuple[torch.dtype | None, ...]:
        """The dtypes asked for; and None, everything as given, where the user's own tensors are of several."""
        own = _floating_dtypes(traced)
        return (*self._settings.dtypes, None) if self._settings.dtypes and len(own) > 1 else self._settings.dtypes

    def _compare(
        self,
        source: Source,
        traced: Traced,
        dtype: torch.dtype | None,
        device: str,
        truths: tuple[FixedPointStage, StepsStage],
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    ) -> None:
        settings = self._settings
        fixed, steps = truths
        adjoints: list[tuple[AdjointName, str, Mapping[str, Array] | None, Array | None]] = [
            ("reversible", "n-step", steps.steps and steps.steps.gradient, steps.steps and steps.steps.z),
            ("implicit", "fixed-point", fixed.gradient, fixed.enclosure and fixed.enclosure.solution),
        ]
        name = dtype_name(dtype)
        kinds = _floating_dtypes(traced) if dtype is None else {dtype}
        stored = min(STORED_BITS.get(kind, 0) for kind in kinds)
        for adjoint, target, truth, state in adjoints:
            if truth is None or state is None:
                self.not_run.append({"what": f"{name} {adjoint} on {device}", "why": "its truth was not certified"})
                continue
            if not truth:
                self.not_run.append({"what": f"{name} {adjoint} on {device}", "why": "it has no leaf but the start"})
                continue
            try:
                run = self._timed(
                    "running torch",
                    lambda adjoint=adjoint: run_in_torch(
                        source, traced, dtype, device, settings.beta, settings.num_steps, cotangents, adjoint
                    ),
                )
            except TorchRunError as error:
                self.not_run.append({"what": f"{name} {adjoint} on {device}", "why": str(error)})
                continue
            leaves = all_bits_right(run.gradient, truth)
            worst = worst_of(leaves)
            for leaf in (*_states_right(traced, run.z, state), *leaves):
                self.rows.append(
                    LeafBits(
                        dtype=name,
                        device=device,
                        adjoint=adjoint,
                        target=target,
                        leaf=leaf.leaf,
                        bits=leaf.bits,
                        stored=stored,
                        index=leaf.index,
                        got=leaf.got,
                        expected=leaf.expected,
                        worst=leaf is worst,
                    )
                )


def _states_right(traced: Traced, got: NDArray[np.float64], truth: Array) -> list[BitsRight]:
    rows: list[BitsRight] = []
    first = 0
    for name in traced.state:
        shape = tuple(traced.values[name].shape)
        part = slice(first, first + int(np.prod(shape)))
        rows.append(bits_right(name.replace("z0", "z1", 1), got[part].reshape(shape), truth[part].reshape(shape)))
        first = part.stop
    return rows


def _looser(settings: Settings) -> Settings:
    # The truth for a narrower dtype's own problem needs no more digits than float64 shows, with 2^-10 to spare.
    return replace(settings, digits=min(settings.digits, 20))


def _floating_dtypes(traced: Traced) -> set[torch.dtype]:
    return {tensor.dtype for tensor in traced.values.values() if tensor.is_floating_point()}


def _is_there(device: str) -> bool:
    kind = device.partition(":")[0]
    return kind == "cuda" and torch.cuda.is_available()
