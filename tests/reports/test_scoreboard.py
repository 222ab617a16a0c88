"""Subjects side by side: a row a check, a column a run, and a dash for what is not claimed."""

from dataclasses import replace

import pytest

from reports.dossier import Dossier, Run
from reports.markdown import to_markdown
from reports.scoreboard import scoreboard
from reports.sections.verdict import build
from reports.text import ABSENT
from verify.criteria import Criterion
from verify.gate import Finding, Judgement
from verify.reading import ERROR
from verify.result import Measurement


CRITERION = Criterion(claim="c", comparison="<=", threshold=8.0, why="w", unit="ratio R", reading=ERROR)


def found(check, measured, passed):
    row = Measurement(check=check, case="c", measured=measured, unit="ratio R")
    return Finding(check=check, measurement=row, criterion=CRITERION, passed=passed, allowed="<= 8", why="w")


@pytest.fixture
def board(synthetic_run):
    def make(*columns):
        runs = []
        for place, (subject, findings) in enumerate(columns):
            verdict = "holds" if all(f.passed is not False for f in findings) else "falls short"
            judgement = Judgement(verdict=verdict, findings=tuple(findings))
            runs.append(Run(f"run {place}", replace(synthetic_run, subject=subject), judgement))
        return Dossier(tuple(runs))

    return make


OURS = ("revdeq", [found("gradient", 2.0, True), found("gradient", 4.0, True), found("saved-bytes", 1.0, True)])
LOOP = ("plain-loop", [found("gradient", 1.0, True), found("gradient", 64.0, False), found("gradient", None, None)])


def test_a_cell_counts_rows_with_power_and_shows_the_worst(board):
    grid = scoreboard(board(OURS, LOOP))
    assert grid is not None
    assert grid.columns == ("check", "revdeq", "plain-loop")
    rows = {row[0]: row[1:] for row in grid.rows}
    assert rows["verdict"] == ("holds", "falls short")
    assert rows["gradient"] == ("2/2 -1", "1/2 3")
    assert rows["saved-bytes"][1] == ABSENT


def test_runs_of_one_subject_have_no_scoreboard(board):
    assert scoreboard(board(OURS)) is None
    assert scoreboard(board(OURS, OURS)) is None


def test_two_runs_of_a_subject_are_told_apart(board):
    grid = scoreboard(board(OURS, LOOP, LOOP))
    assert grid is not None
    assert grid.columns == ("check", "revdeq", "plain-loop, run 1", "plain-loop, run 2")


def test_page_and_markdown_show_it(board):
    dossier = board(OURS, LOOP)
    assert scoreboard(dossier) in build(dossier)
    assert "Subjects side by side" in to_markdown(dossier)


def test_a_hostile_name_ends_no_cell(board):
    text = to_markdown(board(OURS, ("x | <b>[y](z)", LOOP[1])))
    (head,) = [line for line in text.splitlines() if line.startswith("| check | revdeq")]
    assert head.count(" | ") == 2
    assert "<b>" not in head
