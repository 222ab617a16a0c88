"""A recorded straight-line program, and one run of it."""

from __future__ import annotations

from typing import Any

from flint import arb

from verify.certificate.kernel.numbers import Failed, expanded


class Entry:
    """One instruction made ready: where it reads and writes, and on what it depends (see `Code.levels`)."""

    __slots__ = ("first", "given", "level", "name", "place", "places", "size", "slots")

    def __init__(self, given: dict[str, Any], place: int, places: list[list[int]], levels: bytearray) -> None:
        self.given, self.place, self.places, self.first = given, place, places, len(levels)
        self.name: str = given["op"]
        self.size: int = given["n"]
        self.slots = [max((levels[slot] for slot in operand), default=0) for operand in places]
        self.level = max(self.slots, default=0)


class Code:
    """A recorded program; instructions and tapes may be added to it while it is recorded.

    Attributes:
        inputs: the slots of every input, by name: "z", the leaves of f, "cotangent".
        levels: for each slot, 0 for a constant, 1 for what depends on leaves, 2 on the state too, 3 on the cotangent.
    """

    def __init__(self, program: dict[str, Any]) -> None:
        self.program = program
        self.inputs: dict[str, range] = {}
        self.levels = bytearray()
        for name, count in program["inputs"].items():
            self.inputs[name] = range(len(self.levels), len(self.levels) + count)
            self.levels.extend(bytes([{"z": 2, "cotangent": 3}.get(name, 1)] * count))
        self.entries: list[Entry] = []
        self.sync()

    def sync(self) -> None:
        """Take in the instructions that were added."""
        for given in self.program["instructions"][len(self.entries) :]:
            places = [expanded(runs) for runs in given["in"]]
            here = len(self.levels)
            if any(not 0 <= slot < here for operand in places for slot in operand):
                raise Failed("an instruction reads a slot that nothing has written")
            entry = Entry(given, len(self.entries), places, self.levels)
            self.levels.extend(bytes([entry.level] * entry.size))
            self.entries.append(entry)

    def tape(self, name: str) -> tuple[list[Entry], dict[str, list[int]]]:
        """The instructions of a tape, and its outputs."""
        tape = self.program["tapes"][name]
        first, end = tape["instructions"]
        if not 0 <= first <= end <= len(self.entries):
            raise Failed(f"the tape {name} has instructions that are not there")
        return self.entries[first:end], {key: expanded(runs) for key, runs in tape["outputs"].items()}


class Run:
    """A tape at a state: all its numbers, and the slopes of its instructions once they were asked for."""

    __slots__ = ("outputs", "slopes", "slots", "steps", "tape")

    def __init__(self, tape: str, steps: list[Entry], outputs: dict[str, list[int]], slots: list[Any]) -> None:
        self.tape, self.steps, self.outputs, self.slots = tape, steps, outputs, slots
        self.slopes: dict[int, Any] = {}

    def output(self, name: str = "z0") -> list[arb]:
        """An output's numbers."""
        return [self.slots[place] for place in self.outputs[name]]


class Gradient:
    """What reaches numbers that do not depend on the state, added up over any number of pullbacks."""

    def __init__(self, size: int) -> None:
        self.slots: list[Any] = [None] * size
        self.matrices: dict[tuple[int, int], Any] = {}
