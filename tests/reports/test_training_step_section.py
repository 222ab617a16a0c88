"""The study of cost in the report: counts as formulas, ratios beside the floor, and what is missing in words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reports.content import Drawing, Fold, Grid, Notice
from reports.merge import merge
from reports.sections.training_step import training_step_blocks
from verify.result import Curve


WIDTHS = (32.0, 128.0)
STEPS = (2.0, 4.0, 8.0)


def curve(name: str, key: tuple[str, str, str], y: tuple[float, ...], **more: Any) -> Curve:
    solver, adjoint, state = key
    against_width = name in ("cost-ratio", "cost-seconds")
    return Curve(
        name=name, problem="transformer cell", solver=solver, adjoint=adjoint, beta=0.5, dtype="float32",
        state_dtype=state, device="cpu", x_name="x", y=y, x=WIDTHS if against_width else STEPS,
        y_name="seconds of a training step (processor time, 1 thread)", **more,
    )  # fmt: skip


def curves_of(key: tuple[str, str, str], *, rest: float = 0.0, per_step: float = 0.0, ratio: float = 1.25):
    return [
        curve("cost-evaluations", key, tuple(4 * n + rest for n in STEPS)),
        curve("cost-vjps", key, tuple(2 * n for n in STEPS)),
        curve("cost-bytes", key, tuple(4096.0 + per_step * n for n in STEPS)),
        curve("cost-ratio", key, (ratio, ratio / 2), band=(0.1, 0.1)),
        curve("cost-seconds", key, (0.02, 0.1), band=(0.001, 0.001)),
    ]


@pytest.fixture
def blocks_of(build_results):
    def blocks(*found):
        floor = curve("cost-ratio", ("floor", "", ""), (1.0, 1.0)), curve("cost-seconds", ("floor", "", ""), (1.0, 1.0))
        return training_step_blocks(merge([build_results(curves=(*floor, *(c for part in found for c in part)))]))

    return blocks


REVERSIBLE = ("reversible", "reversible", "float64")
UNROLLED = ("reversible", "unrolled", "float64")


def test_counts_are_formulas_and_ratios_stand_beside_them(blocks_of):
    blocks = blocks_of(curves_of(REVERSIBLE), curves_of(UNROLLED, rest=-1.0, per_step=1024.0))
    (grid,) = (block for block in blocks if isinstance(block, Grid))
    first, second = grid.rows
    assert first == (*REVERSIBLE, "4N", "2N", "4 KiB", "0 B", "1.25", "0.62", "20", "100")
    assert second[3:7] == ("4N - 1", "2N", "6 KiB", "1 KiB")


def test_counts_that_are_not_on_a_line_are_listed(blocks_of):
    odd = curves_of(REVERSIBLE)
    odd[0] = curve("cost-evaluations", REVERSIBLE, (8.0, 16.0, 33.0))
    odd[2] = curve("cost-bytes", REVERSIBLE, (1024.0, 1024.0, 9216.0))
    (grid,) = (block for block in blocks_of(odd) if isinstance(block, Grid))
    assert grid.rows[0][3] == "8, 16, 33"
    assert grid.rows[0][6] == "0 B to 2 KiB"


def test_what_is_counted_and_not_timed_has_a_dash_and_so_has_the_reverse(blocks_of):
    blocks = blocks_of(curves_of(REVERSIBLE)[:3], curves_of(UNROLLED)[3:])
    (grid,) = (block for block in blocks if isinstance(block, Grid))
    counted, timed = grid.rows
    assert counted[3] == "4N"
    assert counted[-4:] == ("\u2013",) * 4
    assert timed[3:7] == ("\u2013",) * 4
    assert timed[-4] == "1.25"


def test_pictures_name_the_methods_the_machine_and_the_ratios(blocks_of):
    blocks = blocks_of(curves_of(REVERSIBLE), curves_of(UNROLLED))
    (picture,) = (block for block in blocks if isinstance(block, Drawing))
    text = re.sub("<[^>]+>", " ", picture.svg)
    assert "reversible, unrolled (float64 states)" in text
    assert "width 128" in text
    assert "the reversible step takes 1.25 at width 32 and 0.62 at width 128 with float64 states" in picture.caption
    assert "1 thread" in picture.caption
    assert "torch 2.13.0" in picture.caption
    (fold,) = (block for block in blocks if isinstance(block, Fold))
    assert isinstance(fold.blocks[0], Drawing)


def test_absent_peers_are_said_in_words(blocks_of):
    def caption(*found):
        return next(block.caption for block in blocks_of(*found) if isinstance(block, Drawing))

    assert "Not measured here: torchdeq, torch.utils.checkpoint and JAX" in caption(curves_of(REVERSIBLE))
    peers = [curves_of((solver, "implicit", "float32")) for solver in ("torchdeq", "reversible, by hand")]
    assert "Not measured here: JAX; benchmarks/README.md says how to run it" in caption(curves_of(REVERSIBLE), *peers)


def test_a_run_without_the_study_says_so(build_results):
    (notice,) = training_step_blocks(merge([build_results(curves=())]))
    assert isinstance(notice, Notice)
    assert "no study of cost" in notice.text
