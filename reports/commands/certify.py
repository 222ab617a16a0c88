"""`revdeq certify`: a proof for the user's own module, and the bits that torch gets right on it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from reports.commands.status import COULD_NOT_RUN, leave, user_errors
from verify.users_module import look_where_called


if TYPE_CHECKING:
    from verify.certificate import Settings


class Precision(StrEnum):
    """A dtype in which torch can be run."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


_USUAL = (Precision.FLOAT64, Precision.FLOAT32, Precision.BFLOAT16)

QUIET_SECONDS = 5.0

_DEVICES = {"cpu": ("cpu",), "cuda": ("cuda",), "all": ("cpu", "cuda")}


def certify(
    source: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="FACTORY() returns (function, z0, args)")],
    out: Annotated[Path, typer.Option(help="folder of the certificate")],
    beta: Annotated[float, typer.Option(help="relaxation parameter")] = 0.5,
    steps: Annotated[int, typer.Option(help="number of steps N")] = 8,
    digits: Annotated[int, typer.Option(help="decimal digits that every enclosure must have")] = 30,
    dtype: Annotated[
        list[Precision] | None, typer.Option(help="dtypes in which torch is run; float64, float32 and bfloat16")
    ] = None,
    device: Annotated[Literal["cpu", "cuda", "all"], typer.Option(help="devices on which torch is run")] = "cpu",
    samples: Annotated[int | None, typer.Option(help="samples of the batch to take; as many as fit")] = None,
    max_bits: Annotated[int, typer.Option(help="working precision at which it gives up")] = 2048,
    max_width: Annotated[int, typer.Option(help="most components per sample for the fixed point")] = 320,
) -> None:
    """Write certificate.json, certificate.html and recheck.py into OUT; status 0 if everything asked is proved."""
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    import torch

    from reports.certificate import certificate_page
    from verify.certificate import Answer, SourceError, certify_source, source_from
    from verify.certificate.alone import recheck_program
    from verify.reference.graph import TracingError, UnsupportedOperationError

    look_where_called()
    refusals = (SourceError, TracingError, UnsupportedOperationError, _SettingsError, OSError)
    with user_errors(*refusals), _interruption(), _stages() as progress:
        settings = _settings(
            beta=beta,
            num_steps=steps,
            digits=digits,
            dtypes=tuple(getattr(torch, name.value) for name in dtype or _USUAL),
            devices=_DEVICES[device],
            samples=samples,
            max_bits=max_bits,
            max_width=max_width,
            progress=progress,
        )
        _check_folder(out)
        made = certify_source(source_from(source), settings)
        out.mkdir(parents=True, exist_ok=True)
        made.write(out / "certificate.json")
        _replace(out / "certificate.html", certificate_page(made))
        _replace(out / "recheck.py", recheck_program())
    for found in made.findings:
        typer.echo(f"{found.answer.value}: {found.claim}: {found.sentence}")
    for row in made.bits_right:
        if row.worst:
            typer.echo(
                f"{row.dtype} on {row.device}, {row.adjoint} gradient: {_bits(row.bits)} of {row.stored} bits right at "
                f"{row.leaf}{list(row.index)}"
            )
    for entry in made.not_run:
        typer.echo(f"not run: {entry['what']}: {entry['why']}")
    for sentence in made.advice:
        typer.echo(f"advice: {sentence}")
    typer.echo(f"The certificate is {(out / 'certificate.html').resolve()}")
    leave(made.answer is Answer.CERTIFIED)


def _bits(bits: float) -> str:
    if math.isinf(bits):
        return "all" if bits > 0 else "none (not finite)"
    return f"{max(0.0, bits):.1f}"


@contextmanager
def _interruption() -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("revdeq: interrupted; no certificate was written, the next run begins again", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None


class _SettingsError(ValueError):
    """An option is not as `Settings` says."""


def _settings(**options: object) -> Settings:
    from verify.certificate import Settings

    try:
        return Settings(**options)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise _SettingsError(str(error)) from error


def _check_folder(out: Path) -> None:
    """See before the work that its result can be written."""
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise _SettingsError(f"{out} cannot be written to; give another folder with --out")


@contextmanager
def _stages() -> Generator[Callable[[str], None]]:
    """Show the stage on standard error: one line that changes on a terminal, elsewhere a line for each stage.

    What happens within a stage gets a line only every `QUIET_SECONDS`.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        last = time.monotonic()

        def line(stage: str) -> None:
            nonlocal last
            if ": " not in stage or time.monotonic() - last >= QUIET_SECONDS:
                console.out(f"certify: {stage}", highlight=False)
                last = time.monotonic()

        yield line
        return
    with console.status("certify") as status:
        yield lambda stage: status.update(f"certify: {stage}")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
