"""`revdeq certify`: its files, its exit status, and the page."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from reports.certificate import certificate_page
from reports.commands.certify import certify
from verify.certificate import certify as make_certificate, recheck


MODULE = """
import torch

def good():
    return (lambda z, x: 0.5 * torch.tanh(z) + x), torch.zeros(1, 2), torch.ones(1, 2)

def expanding():
    return (lambda z, x: 2 * z + x), torch.zeros(1, 1), torch.ones(1, 1)

def unsupported():
    return (lambda z, x: torch.i0(z) + x), torch.zeros(1, 1), torch.ones(1, 1)

def random():
    return (lambda z, x: z + torch.rand_like(z)), torch.zeros(1, 1), torch.ones(1, 1)

def branching():
    return (lambda z, x: z if z.sum() > 0 else x), torch.zeros(1, 1), torch.ones(1, 1)

def nothing():
    return None

def raising():
    raise OSError("the weights are not there")

def interrupted():
    raise KeyboardInterrupt
"""
QUICK = ["--steps", "2", "--digits", "15", "--dtype", "float64"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "certified_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "certified_module", raising=False)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(certify)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_certify_writes_certificate_page_and_program(folder: Path) -> None:
    status, output = run("certified_module:good", "--out", "out", *QUICK)
    assert status == 0, output
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "certificate.html",
        "certificate.json",
        "recheck.py",
    ]
    assert len(recheck(json.loads((folder / "out" / "certificate.json").read_text()))) == 6
    assert "certified: fixed point" in output
    assert "float64 on cpu, reversible gradient" in output
    assert os.access(folder / "out" / "certificate.html", os.R_OK)


def test_refuted_claim_leaves_with_status_one(folder: Path) -> None:
    status, output = run("certified_module:expanding", "--out", "out", *QUICK)
    assert status == 1
    assert "refuted: contraction" in output
    assert (folder / "out" / "certificate.json").exists()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("certified_module:none", [], "has no none; it has branching, expanding, good, interrupted"),
        ("certified_module:nothing", [], "gives NoneType; it must give the triple"),
        ("certified_module:raising", [], "raised OSError: the weights are not there"),
        ("certified_module:branching", [], "depends on the values of tensors"),
        ("certified_module:interrupted", [], "interrupted; no certificate was written"),
        ("nowhere:good", [], "there is no module nowhere"),
        ("certified_module:unsupported", [], "aten.i0.default at"),
        ("certified_module:random", [], "draws random numbers"),
        ("certified_module:good", ["--beta", "1"], "cannot be undone"),
        ("certified_module:good", ["--digits", "5000"], "raise max_bits"),
    ],
)
def test_what_cannot_be_certified_is_one_sentence_and_status_two(
    folder: Path, source: str, options: list[str], message: str
) -> None:
    status, output = run(source, "--out", "out", *options)
    assert status == 2
    assert message in output.replace("\n", "")
    assert "Traceback" not in output
    assert not (folder / "out").exists()


def test_folder_that_cannot_be_is_refused_before_the_work(folder: Path) -> None:
    (folder / "taken").write_text("a file")
    status, output = run("certified_module:good", "--out", "taken/out", *QUICK)
    assert status == 2
    assert "cannot be written to" in output
    assert "proving" not in output


def test_page_says_everything_that_was_found() -> None:
    found = make_certificate(
        (lambda z, x: 0.5 * torch.relu(z).float().double() + x, torch.zeros(1, 2).double(), torch.ones(1, 2).double()),
        num_steps=2,
        digits=15,
        dtypes=(torch.float64,),
        devices=("cpu", "xpu"),
    )
    page = certificate_page(found)
    for part in (
        "What is proved",
        "Casts between floating dtypes inside f were dropped",
        "exactly on a kink",
        "float64 on xpu",
        "contraction constant, proved",
        "Bits right of each torch result",
        "recheck.py",
        "--beta 0.5 --steps 2 --digits 15",
        "aten.relu.default",
    ):
        assert part in page, part
    assert "<script src" not in page


def test_page_of_a_map_without_fixed_point_says_so() -> None:
    found = make_certificate(
        (lambda z, x: z + x, torch.zeros(1, 1).double(), torch.ones(1, 1).double()), num_steps=1, digits=15, dtypes=()
    )
    page = certificate_page(found)
    assert "proved to be otherwise" in page
    assert "nothing is known about df/dz" in page
    assert "No torch result was compared." in page
