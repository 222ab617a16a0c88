"""Records a traced function as a straight-line program for the re-checker, anew where a branch goes another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flint import arb

from verify.certificate.kernel.code import Code
from verify.certificate.recording import Recording, compressed, slot_numbers
from verify.reference.arithmetic import Array, Undecided
from verify.reference.arithmetic.balls import Balls
from verify.reference.graph import Graph, Program, Traced


class Recorder:
    """A program that grows while it is used: the function, and torch's backward of it.

    Args:
        traced: the function.

    Attributes:
        code: the program, made ready to run.
        kinds: the names of the tapes recorded so far, by kind.
    """

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._recording = Recording(64)
        arrays = traced.arrays()
        real = [entry.name for entry in traced.forward.inputs if entry.type.is_real]
        self._exact = {name: values for name, values in arrays.items() if name not in real}
        self.shapes = {name: arrays[name].shape for name in traced.state}
        size = sum(int(np.prod(shape)) for shape in self.shapes.values())
        zeros = np.zeros(size)
        self._z = self._recording.input(self._recording.balls.convert(zeros))
        self._leaves = {
            name: self._recording.input(self._recording.balls.convert(arrays[name]))
            for name in real
            if name not in traced.state
        }
        self._cotangent = self._recording.input(self._recording.balls.convert(zeros))
        self._tapes: dict[str, Any] = {}
        self.kinds: dict[str, list[str]] = {}
        inputs = {"z": size, **{name: slots.size for name, slots in self._leaves.items()}, "cotangent": size}
        self.code = Code(
            {
                "inputs": inputs,
                "instructions": self._recording.instructions,
                "tapes": self._tapes,
                "nodes": len(traced.forward.nodes),
            }
        )

    def program(self) -> dict[str, Any]:
        """The program in plain JSON values."""
        return self.code.program

    def record(self, kind: str, bits: int, z: list[arb], values: Mapping[str, list[arb]]) -> str:
        """Write a tape that holds over these balls.

        Args:
            kind: "f", or "torch", its backward.
            bits: at which its branches are decided.
            z: the state, flat.
            values: of the other leaves.

        Returns:
            Its name.

        Raises:
            Undecided: a comparison cannot be decided.
        """
        recording = self._recording
        recording.balls = Balls(bits)
        mark = recording.mark()
        zeros = [arb(0)] * len(z)
        pairs = [(self._z, z), (self._cotangent, zeros), *((self._leaves[name], values[name]) for name in self._leaves)]
        for slots, balls in pairs:
            for slot, ball in zip(slots.ravel().tolist(), balls, strict=True):
                slot.ball = ball
        recording.node = 0 if kind == "f" else None
        try:
            outputs = self._run(self._traced.forward if kind == "f" else self._traced.vjp)
        except Undecided:
            recording.back_to(mark)
            raise
        name = f"{kind} {len(self._tapes)}"
        self._tapes[name] = {
            "instructions": [mark[0], len(recording.instructions)],
            "outputs": {leaf: compressed(slot_numbers(slots)) for leaf, slots in outputs.items()},
        }
        self.kinds.setdefault(kind, []).append(name)
        return name

    def _split(self, flat: Array) -> dict[str, Array]:
        parts: dict[str, Array] = {}
        first = 0
        for name, shape in self.shapes.items():
            count = int(np.prod(shape))
            parts[name] = flat[first : first + count].reshape(shape)
            first += count
        return parts

    def _run(self, graph: Graph) -> dict[str, Array]:
        program = Program(graph, self._recording, {**self._exact, **self._leaves})
        given = self._split(self._z)
        given |= {name.replace("z0", "cotangent", 1): part for name, part in self._split(self._cotangent).items()}
        results = program({name: given[name] for name in program.free})
        others = {name: balls for name, balls in results.items() if name not in self._traced.state}
        return {"z0": np.concatenate([results[name].reshape(-1) for name in self._traced.state]), **others}
