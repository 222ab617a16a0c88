"""Results of a run: one row per measurement, one curve per figure line, one versioned JSON file.

The file is strict JSON (RFC 8259): a float that JSON cannot hold is written as "nan", "inf" or "-inf" and read back as
that float, unknown and missing keys are errors, and a file is replaced whole or not at all.
"""

from __future__ import annotations

import functools
import json
import math
import os
import tempfile
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints


SCHEMA = "revdeq-results"
VERSION = 1

Status = Literal["measured", "no-power", "skipped", "failed"]
ENVIRONMENT_KEYS: tuple[str, ...] = (
    "commit",
    "dirty",
    "source",
    "revdeq",
    "python",
    "torch",
    "platform",
    "devices",
    "threads",
    "seed",
)
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

T = TypeVar("T")


class ResultsError(ValueError):
    """A results file that cannot be read or written; the message says which, why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number that one check measured, with what is needed to judge it and to measure it again.

    Args:
        check: name of the claim, a key of `verify.criteria.CRITERIA`.
        case: stable id "problem/solver/beta=B/N=N/dtype/device" (dtype "float32+float64": f in float32, state float64).
        problem: name of the equilibrium problem.
        solver: how the iteration runs, "reversible" or "relaxed".
        adjoint: how it is differentiated, "reversible", "unrolled", "implicit", or "" for a forward claim.
        target: what the gradient is compared with, "n-step", "fixed-point" or "".
        beta: relaxation parameter.
        num_steps: number of steps N.
        dtype: dtype in which f is evaluated.
        state_dtype: dtype in which the states y and z are kept.
        device: device type, "cpu" or "cuda".
        leaf: what was compared: "z1", "y1", "z0", "args.W", "step 3", ...
        index: index of the worst component inside the leaf.
        got: the worst component, as measured.
        expected: the worst component, from the reference.
        measured: the number that the gate judges, in `unit`.
        unit: "ratio R", "relative", "count", "bytes per step", "order", "log ratio" or "bits".
        scale: what the difference was divided by.
        power: scale relative to the size of the reference: the smallest relative fault that the row can see.
        uncertainty: uncertainty of the reference, absolute, like `scale`.
        evaluations: evaluations of f, forward and backward together.
        vjps: vector-Jacobian products of f.
        saved_bytes: bytes that the graph keeps between forward and backward.
        seconds: wall time, information only.
        status: "measured"; "no-power": the row cannot see a fault; "skipped"; "failed": nothing could be measured.
        reason: why the status is not "measured".
        replay: command that measures this case again.
    """

    check: str
    case: str
    problem: str = ""
    solver: str = ""
    adjoint: str = ""
    target: str = ""
    beta: float | None = None
    num_steps: int | None = None
    dtype: str = ""
    state_dtype: str = ""
    device: str = ""
    leaf: str = ""
    index: tuple[int, ...] | None = None
    got: float | None = None
    expected: float | None = None
    measured: float | None = None
    unit: str = ""
    scale: float | None = None
    power: float | None = None
    uncertainty: float | None = None
    evaluations: int | None = None
    vjps: int | None = None
    saved_bytes: int | None = None
    seconds: float | None = None
    status: Status = "measured"
    reason: str = ""
    replay: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a figure: y against x, with a prediction and the uncertainty of the reference where there are any.

    Args:
        name: what it shows: "error-vs-evaluations", "convergence", "reconstruction" or "memory", which the gate asks
            for, or a name that a study of `verify.studies` uses. Readers leave names alone that they do not know, so
            that a new one needs no new version of the schema.
        problem: name of the equilibrium problem.
        solver: as in `Measurement`; so are adjoint, target, beta, dtype, state_dtype and device. In a study, solver and
            adjoint are the names of what it compares.
        x_name: label of x with its unit.
        y_name: label of y with its unit.
        x: abscissae, increasing.
        y: ordinates, as many as x.
        predicted: what theory predicts for y, as many as x.
        band: half width of the reference's uncertainty, as many as x.
    """

    name: str
    problem: str
    solver: str
    adjoint: str = ""
    target: str = ""
    beta: float | None = None
    dtype: str = ""
    state_dtype: str = ""
    device: str = ""
    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    predicted: tuple[float, ...] | None = None
    band: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("y", "predicted", "band"):
            values = cast("tuple[float, ...] | None", getattr(self, name))
            if values is not None and len(values) != len(self.x):
                raise ResultsError(
                    f"curve {self.name!r} of {self.problem!r} has {len(self.x)} x and {len(values)} {name}: "
                    "give as many of each."
                )


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """What a run left out, and why, in words.

    Args:
        what: the thing that was not measured.
        why: the reason.
    """

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class FaultRecord:
    """What became of one planted fault.

    Args:
        fault: name of the fault; "honest" is the control, which no check may kill.
        description: what is wrong in it, one sentence.
        killed_by: the checks that turned the gate red.
        expected: True where a check must kill it, False for the control.
    """

    fault: str
    description: str
    killed_by: tuple[str, ...]
    expected: bool = True


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that one run measured: the one source of truth for the gate and the reports.

    Args:
        profile: "quick", "full", "nightly" or "replay" (one case measured again).
        command: the command that made it.
        started: ISO 8601 time with offset.
        finished: ISO 8601 time with offset.
        environment: commit, versions, devices, threads, seeds (see `verify.environment`).
        subject: name of what was verified.
        complete: False where the run was interrupted or measured a part only.
        measurements: the rows.
        curves: the lines of the figures.
        not_measured: what was left out, and why.
        selftest: what became of each planted fault, None where the selftest did not run.
    """

    profile: str
    command: str
    started: str
    finished: str
    environment: dict[str, Any]
    subject: str
    complete: bool
    measurements: tuple[Measurement, ...]
    curves: tuple[Curve, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()
    selftest: tuple[FaultRecord, ...] | None = None

    def __post_init__(self) -> None:
        missing = [key for key in ENVIRONMENT_KEYS if key not in self.environment]
        if missing:
            raise ResultsError(f"environment lacks {missing}: collect it with verify.environment.describe().")


@dataclass(frozen=True)
class _Path:
    """Where in the file a value stands, for error messages."""

    text: str = field(default="results")

    def __truediv__(self, part: str | int) -> _Path:
        return _Path(f"{self.text}[{part}]" if isinstance(part, int) else f"{self.text}.{part}")


def to_json(results: Results) -> dict[str, Any]:
    """Plain JSON values of `results`, schema and version first."""
    return {"schema": SCHEMA, "version": VERSION, **cast("dict[str, Any]", _encode(results))}


def from_json(data: object) -> Results:
    """Results from plain JSON values.

    Raises:
        ResultsError: if the schema, the version, a key or a type is not the one that this version writes.
    """
    if not isinstance(data, dict):
        raise ResultsError("a results file holds one JSON object, not a list or a value: write it with revdeq verify.")
    values = cast("dict[str, Any]", data)
    if values.get("schema") != SCHEMA:
        raise ResultsError(f"schema is {values.get('schema')!r}, not {SCHEMA!r}: give a file that revdeq verify wrote.")
    if values.get("version") != VERSION:
        raise ResultsError(
            f"schema version is {values.get('version')!r} and this revdeq reads version {VERSION}: "
            "read it with the revdeq that wrote it, or run revdeq verify again."
        )
    body = {key: value for key, value in values.items() if key not in ("schema", "version")}
    return _decode(body, Results, _Path())


def read_results(path: str | Path) -> Results:
    """Read a results file.

    Raises:
        ResultsError: if the file is not there, is cut short, is not strict JSON, or is of another schema or version.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ResultsError(f"there is no results file at {path}: make one with revdeq verify --out DIR.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} cannot be read ({error}): give a results file that revdeq verify wrote.") from error
    try:
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise ResultsError(
            f"{path} is truncated or not JSON (line {error.lineno}, column {error.colno}: {error.msg}): "
            "run revdeq verify again, into the same folder to resume."
        ) from error
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error
    try:
        return from_json(data)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error


def write_results(results: Results, path: str | Path) -> Path:
    """Write a results file; an existing one is replaced whole, or left untouched if anything goes wrong.

    Returns:
        The path written.

    Raises:
        ResultsError: if the folder cannot be made or written.
    """
    return write_text(_one_row_a_line(to_json(results)) + "\n", path)


def _one_row_a_line(data: dict[str, Any]) -> str:
    """JSON with each row, curve and record on a line of its own: small, and lines can be compared."""
    parts: list[str] = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(row, allow_nan=False) for row in cast("list[object]", value))
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(parts) + "\n}"


def write_text(text: str, path: str | Path) -> Path:
    """Write `text` to `path` through a temporary file in the same folder and `os.replace`.

    Raises:
        ResultsError: if the folder cannot be made or written.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ResultsError(
            f"{path} cannot be written ({error.strerror or error}): choose an output folder that can be."
        ) from error
    return path


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _encode(value: object) -> object:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in cast("dict[str, object]", value).items()}
    return {item.name: _encode(getattr(value, item.name)) for item in fields(cast("Any", value))}


def _decode(value: object, kind: Any, path: _Path) -> Any:
    if kind is Any or kind is object:
        return value
    origin = get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:
        options = get_args(kind)
        if value is None:
            if type(None) not in options:
                raise _wrong(path, value, kind)
            return None
        (only,) = (option for option in options if option is not type(None))
        return _decode(value, only, path)
    if origin is Literal:
        if value not in get_args(kind):
            raise _wrong(path, value, " or ".join(get_args(kind)))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(path, value, "a list")
        return tuple(
            _decode(item, get_args(kind)[0], path / place) for place, item in enumerate(cast("list[object]", value))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(path, value, "an object")
        return cast("dict[str, Any]", value)
    if kind is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(path, value, 'a number, "nan", "inf" or "-inf"')
        return float(value)
    if kind in (str, bool, int):
        if type(value) is not kind:
            raise _wrong(path, value, {str: "a string", bool: "true or false", int: "an integer"}[kind])
        return value
    return _decode_object(value, kind, path)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the types of the fields of a record, which are resolved once and not once a row."""
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(cast("Any", kind))}


def _decode_object(value: object, kind: type[T], path: _Path) -> T:
    if not isinstance(value, dict):
        raise _wrong(path, value, "an object")
    values = cast("dict[str, object]", value)
    hints = _hints(kind)
    unknown = sorted(set(values) - set(hints))
    missing = [name for name in hints if name not in values]
    if unknown or missing:
        raise ResultsError(
            f"{path.text} lacks {missing} and has unknown {unknown}: "
            f"version {VERSION} of the schema has exactly its own keys; run revdeq verify again."
        )
    return kind(**{name: _decode(values[name], hint, path / name) for name, hint in hints.items()})


def _wrong(path: _Path, value: object, allowed: object) -> ResultsError:
    shown = repr(value)
    return ResultsError(
        f"{path.text} is {shown if len(shown) <= 60 else shown[:57] + '...'}, allowed is {allowed}: "
        "run revdeq verify again instead of editing the file."
    )


def _refuse_constant(name: str) -> float:
    raise ResultsError(f"the bare word {name} is not JSON: write it as a string, as revdeq verify does.")


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ResultsError("an object holds the same key twice: run revdeq verify again instead of editing the file.")
    return values
