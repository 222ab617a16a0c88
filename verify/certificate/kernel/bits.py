"""How many bits of torch's results are right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from flint import arb

from verify.certificate.kernel.enclosures import scales, size_of
from verify.certificate.kernel.numbers import Failed, unpacked
from verify.certificate.kernel.problem import Proved


def bits_of_run(certificate: dict[str, Any], run: dict[str, Any], part: Proved) -> list[dict[str, Any]]:
    """A row for each leaf of one of torch's results.

    Args:
        certificate: its names and shapes.
        run: what torch returned.
        part: the truth.

    Raises:
        Failed: the result has other leaves than the truth.
    """
    target = {"n_step": "n-step", "fixed_point": "fixed-point"}[part.kind]
    common = {key: run[key] for key in ("dtype", "device", "adjoint")} | {"target": target}
    state: dict[str, Any] = certificate["state"]
    truth = dict(part.truth)
    shapes = {**certificate["leaves"]}
    if "z0" in truth:
        truth |= by_leaf(truth.pop("z0"), state)
    got = {name: unpacked(text) for name, text in run["gradient"].items()}
    if set(got) != set(truth):
        raise Failed(f"torch's result has {', '.join(sorted(got))} where {', '.join(sorted(truth))} are known")
    rows = [
        (name.replace("z0", "z1", 1), values, balls, state[name], None)
        for name, values, balls in _pairs(unpacked(run["z"]), part.state, state)
    ]
    every = scales(truth)
    leaves = [
        (name, got[name], truth[name], shapes[name], every[name]) for name in certificate["leaves"] if name in got
    ]
    made = [{**common, "stored": run["stored"], **bits_of(*row), "worst": False} for row in (*rows, *leaves)]
    of_gradient = made[len(rows) :]
    if of_gradient:
        min(of_gradient, key=lambda row: float(row["bits"]))["worst"] = True
    return made


def by_leaf(balls: list[Any], state: dict[str, list[int]]) -> dict[str, list[Any]]:
    """The state's parts by leaf, from one list."""
    parts: dict[str, list[Any]] = {}
    first = 0
    for name, shape in state.items():
        parts[name] = balls[first : first + math.prod(shape)]
        first += math.prod(shape)
    return parts


def _pairs(
    values: list[float], balls: list[arb], state: dict[str, list[int]]
) -> Iterator[tuple[str, list[float], list[arb]]]:
    if len(values) != len(balls):
        raise Failed(f"torch's state has {len(values)} numbers, not {len(balls)}")
    of_balls = by_leaf(balls, state)
    for name, part in by_leaf(values, state).items():
        yield name, part, of_balls[name]


def bits_of(leaf: str, got: list[float], truth: list[arb], shape: list[int], scale: arb | None) -> dict[str, Any]:
    """-log2 of the greatest error over the greatest component, rounded down; the radius counts as error."""
    if len(got) != len(truth):
        raise Failed(f"torch's {leaf} has {len(got)} numbers, not {len(truth)}")
    row: dict[str, Any] = {"leaf": leaf, "bits": "inf", "index": [], "got": 0.0, "expected": ""}
    if not got:
        return row
    place = next((place for place, value in enumerate(got) if not math.isfinite(value)), -1)
    if place >= 0:
        row["bits"] = "-inf"
    else:
        errors = [(arb(value) - ball).abs_upper() for value, ball in zip(got, truth, strict=True)]
        worst = size_of(errors)
        place = next(number for number, error in enumerate(errors) if not error < worst)
        scale = size_of(truth) if scale is None else scale
        if worst != 0:
            bits = -float((worst / (scale if scale > 0 else arb(1))).log().upper()) / math.log(2.0)
            row["bits"] = math.floor(100 * bits) / 100 if math.isfinite(bits) else "-inf"
    value = got[place]
    return {
        **row,
        "index": unravelled(place, shape),
        "got": value if math.isfinite(value) else str(value),
        "expected": truth[place].str(20),
    }


def unravelled(place: int, shape: list[int]) -> list[int]:
    """The index of the place-th number of an array, row by row."""
    index: list[int] = []
    for size in reversed(shape):
        index.append(place % size)
        place //= size
    return index[::-1]
