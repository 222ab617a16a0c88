"""Writes a report: everything into a new folder first, which then takes the place of the old one whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reports.dossier import Dossier
from reports.errors import ReportError
from reports.html import to_html
from reports.junit import to_junit
from reports.markdown import to_markdown
from reports.merge import merge
from reports.sections import build_sections
from reports.sections.conclusions import conclusions
from reports.tables import write_tables
from reports.verdict import subtitle
from verify.gate import Judgement
from verify.result import Results


FILES = ("index.html", "report.md", "junit.xml", "tables")
"""What a report consists of; other files in its folder are left alone."""


def render(
    results: Sequence[Results],
    judgements: Sequence[Judgement] | None,
    out: str | Path,
    *,
    recorded: Sequence[Results] = (),
) -> Path:
    """Write index.html, report.md, junit.xml and tables/ into a folder.

    Everything is written beside the folder's own files under a temporary name and moved into place when all of it is
    there, so that a failure leaves an earlier report as it was. Files that are not the report's are not touched.

    Args:
        results: at least one run.
        judgements: one per run, or None to have the gate judge them.
        out: folder of the report; it is made if need be.
        recorded: runs of other machines to show beside them.

    Returns:
        Path of index.html.

    Raises:
        ReportError: no run, or a folder that cannot be written.
    """
    dossier = merge(results, judgements, recorded)
    return write_report(dossier, Path(out))


def write_report(dossier: Dossier, out: Path) -> Path:
    """As `render`, from runs that were put together before."""
    sections = build_sections(dossier)
    first = dossier.runs[0].results
    title = f"{first.subject}: verification report"
    page = to_html(title, subtitle(dossier), sections)
    pages = {
        "index.html": page,
        "report.md": to_markdown(dossier, conclusions(dossier)),
        "junit.xml": to_junit(dossier),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Inside the folder, so that moving into place is a rename and never a copy from one disk to another.
        staging = Path(tempfile.mkdtemp(prefix=".report-", dir=out))
        try:
            for name, text in pages.items():
                (staging / name).write_text(text, encoding="utf-8")
            tables = staging / "tables"
            tables.mkdir()
            write_tables(dossier, tables)
            _replace(staging, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ReportError(
            f"the report cannot be written to {out} ({error.strerror or error}): choose a folder that can be written."
        ) from error
    return out / "index.html"


def _replace(staging: Path, out: Path) -> None:
    """Swap the finished files in; what they replace is put back if one of them cannot be moved."""
    retired = staging / "retired"
    retired.mkdir()
    moved: list[str] = []
    try:
        for name in FILES:
            if (out / name).exists():
                (out / name).rename(retired / name)
            moved.append(name)
            (staging / name).rename(out / name)
    except OSError:
        for name in moved:
            if (retired / name).exists():
                _discard(out / name)
                (retired / name).rename(out / name)
        raise


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
