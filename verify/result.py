"""Results of a run: one row per measurement, one curve per figure line; `verify.result_file` writes and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast


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


FAILED_TASK = "task "
"""With what begins the name of something that was planned and not measured, because it failed."""

SUBJECT_FILES = "subject_files"
"""Key of the environment block under which the files of a foreign subject stand, with their digests."""


CLAIMS = "claims"
"""Key under which the claims of a subject stand that does not claim everything."""


class ResultsError(ValueError):
    """A results file that cannot be read or written; the message says which, why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number that one check measured, with what is needed to judge it and to measure it again.

    Args:
        check: name of the claim, a key of `verify.checks.CRITERIA`.
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
        error: what `scale` divides: the root of the mean square of the errors over all components of the leaf.
        measured: the number that the gate judges, in `unit`; it follows from the others as `verify.reading` says.
        unit: "ratio R", "relative", "count", "bytes per step", "order", "log ratio" or "bits".
        scale: what the difference was divided by.
        size: root of the mean square of the reference.
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
    error: float | None = None
    measured: float | None = None
    unit: str = ""
    scale: float | None = None
    size: float | None = None
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

    @property
    def failed(self) -> bool:
        """Whether it was planned and failed, and is not left out by choice."""
        return self.what.startswith(FAILED_TASK)


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
        devices: device types on which it was measured.
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
    devices: tuple[str, ...]
    complete: bool
    measurements: tuple[Measurement, ...]
    curves: tuple[Curve, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()
    selftest: tuple[FaultRecord, ...] | None = None

    def __post_init__(self) -> None:
        missing = [key for key in ENVIRONMENT_KEYS if key not in self.environment]
        if missing:
            raise ResultsError(f"environment lacks {missing}: collect it with verify.environment.describe().")
