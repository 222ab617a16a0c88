"""A synthetic run that the gate lets pass, with numbers of the size that a real one has."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from reports.content import BuiltSection
from reports.dossier import Dossier
from reports.sections import SECTIONS, build_sections
from verify.checks import CRITERIA
from verify.criteria import Criterion
from verify.gate import Judgement, judge as judge_run
from verify.plan import Place, Plan, PlannedCurve, PlannedFault, PlannedRow, curve_key, row_key
from verify.reading import Derived, Reading
from verify.result import Curve, FaultRecord, Measurement, NotMeasured, Results


PROBLEMS = {"affine-real": 0.9, "kepler": 0.5, "tanh": 0.9, "attention": 0.6}
PRECISIONS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}
SETTINGS = ((0.5, 4), (0.8, 2), (0.8, 8), (0.25, 4))
STEPS = (1, 2, 3, 4, 6, 8, 16, 32)
BuildResults = Callable[..., Results]
Judge = Callable[..., Judgement]
CURVES = frozenset(("error-vs-evaluations", "convergence", "reconstruction", "memory"))
"""Names of curves that a run must hold."""


COLUMNS = ("got", "expected", "error", "scale", "size", "power", "uncertainty")
FREE = {
    check: replace(
        criterion,
        reading=Reading(formula="measured", measured=Derived(("measured",), float), also=COLUMNS),
        observed="args",
        notes=False,
    )
    for check, criterion in CRITERIA.items()
}
"""The table with rows whose columns are free of one another, so that tests of what is shown can change one of them."""


def _environment() -> dict[str, Any]:
    return {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "source": "f" * 64,
        "revdeq": "0.1.0",
        "python": "3.11.7",
        "torch": "2.13.0",
        "platform": "Linux-6.1-x86_64",
        "devices": [
            {"device": "cpu", "name": "x86_64", "available": True, "reason": ""},
            {"device": "cuda", "name": "", "available": False, "reason": "no device on this machine"},
        ],
        "threads": 2,
        "seed": 20250912,
    }


def _noise(place: int) -> float:
    """A number in (0.1, 2), the same in every run."""
    return 0.1 + 1.9 * ((place * 0.6180339887498949) % 1.0)


def _row(check: str, place: int, problem: str, beta: float, steps: int, dtype: str, leaf: str) -> Measurement:
    criterion = CRITERIA[check]
    case = f"{problem}/reversible/beta={beta!r}/N={steps}/{dtype}/cpu"
    scale = 3.0 * PRECISIONS[dtype]
    if criterion.comparison == "==":
        measured = criterion.threshold
    elif criterion.comparison == ">=":
        measured = 10.0 * criterion.threshold
    else:
        measured = 0.1 * criterion.threshold * _noise(place)
    powered = criterion.power is None or scale <= criterion.power
    return Measurement(
        check=check,
        case=case,
        problem=problem,
        solver="reversible",
        adjoint="implicit" if check == "implicit-gradient" else "reversible",
        target="n-step",
        beta=beta,
        num_steps=steps,
        dtype=dtype,
        state_dtype=dtype,
        device="cpu",
        leaf=leaf,
        index=None,
        got=1.0 + measured * scale,
        expected=1.0,
        error=measured * scale,
        measured=measured,
        unit=criterion.unit,
        scale=scale,
        size=1.0,
        power=scale,
        uncertainty=1e-50,
        evaluations=4 * steps,
        vjps=2 * steps,
        saved_bytes=1024,
        seconds=0.002,
        status="measured" if powered else "no-power",
        reason="" if powered else f"power {scale:g} is above {criterion.power:g}",
        replay=f"revdeq verify --case {case} --out replay",
    )


def _rows() -> list[Measurement]:
    rows: list[Measurement] = []
    for check, criterion in CRITERIA.items():
        leaves = ("z0", "args.W") if check in ("gradient", "bindings", "implicit-gradient") else ("z1",)
        # A few cases of each, float64 alone where a row must see a fault of 2^-20.
        dtypes = ("float64",) if criterion.logic else ("float64", "float32")
        if check == "gradient":
            dtypes = ("float64", "float32", "bfloat16")
        wanted = 8
        count = 0
        extra = 0
        while count < max(wanted, 4) or extra == 0:
            for problem in PROBLEMS:
                for beta, steps in SETTINGS:
                    for dtype in dtypes:
                        for leaf in leaves:
                            rows.append(_row(check, len(rows), problem, beta, steps + 32 * extra, dtype, leaf))
                            count += 1
            extra += 1
    return rows


def _curves() -> list[Curve]:
    curves: list[Curve] = []
    x = tuple(float(2 * n) for n in STEPS)
    n_axis = tuple(float(n) for n in STEPS)
    for problem, k in PROBLEMS.items():
        for beta in (0.5, 0.8, 0.25):
            rate = ((beta * k + math.sqrt(beta * beta * k * k + 4 * (1 - beta))) / 2) ** 2
            gap = tuple(0.7 * rate**n for n in n_axis)
            for dtype, u in PRECISIONS.items():
                labels: dict[str, Any] = {
                    "problem": problem, "solver": "reversible", "beta": beta, "dtype": dtype, "state_dtype": dtype,
                    "device": "cpu",
                }  # fmt: skip
                far = tuple(value + u for value in gap)
                small = tuple(u * _noise(place) * n for place, n in enumerate(n_axis))
                for adjoint, to_steps, to_point in (
                    ("reversible", small, far),
                    ("unrolled", small, far),
                    ("implicit", far, tuple(0.3 * value for value in far)),
                ):
                    for target, y in (("n-step", to_steps), ("fixed-point", to_point)):
                        curves.append(
                            Curve(
                                name="error-vs-evaluations", adjoint=adjoint, target=target, **labels, x=x, y=y,
                                x_name="evaluations of f, forward (count)", y_name="relative error of the gradient",
                            )
                        )  # fmt: skip
                amplified = tuple(min(u * (rate / (1 - beta) ** 2) ** n, 1e30) for n in n_axis)
                curves.append(
                    Curve(
                        name="reconstruction", adjoint="reversible", **labels, x=n_axis, y=amplified,
                        predicted=amplified, x_name="steps N (count)", y_name="relative error of the rebuilt z0",
                    )
                )  # fmt: skip
            labels = {
                "problem": problem, "solver": "reversible", "beta": beta, "dtype": "float64", "state_dtype": "float64",
                "device": "cpu",
            }  # fmt: skip
            curves.append(
                Curve(
                    name="convergence", **labels, x=n_axis, y=tuple(value + 1e-16 for value in gap), predicted=gap,
                    x_name="steps n (count)", y_name="relative distance to the fixed point",
                )
            )  # fmt: skip
        for adjoint, slope in (("reversible", 0.0), ("unrolled", 4096.0)):
            curves.append(
                Curve(
                    name="memory", problem=problem, solver="reversible", adjoint=adjoint, beta=0.5, dtype="float64",
                    state_dtype="float64", device="cpu", x=n_axis, y=tuple(1024.0 + slope * n for n in n_axis),
                    x_name="steps N (count)", y_name="saved bytes",
                )
            )  # fmt: skip
    return curves


def plan_of_itself(results: Results) -> Plan:
    """A plan that a synthetic run meets: its own rows and curves."""
    columns = (
        "check",
        "case",
        "problem",
        "solver",
        "adjoint",
        "target",
        "beta",
        "num_steps",
        "dtype",
        "leaf",
        "replay",
    )
    controls = {record.fault: record for record in results.selftest or ()}
    return Plan(
        profile=results.profile,
        criteria=FREE,
        rows={
            row_key(row): PlannedRow(
                {name: getattr(row, name) for name in columns},
                Place(),
            )
            for row in results.measurements
            if row.check in CRITERIA
        },
        curves={curve_key(curve): PlannedCurve((curve.x_name, curve.y_name)) for curve in results.curves},
        studies=CURVES,
        faults={
            name: PlannedFault(record.description, record.expected, frozenset()) for name, record in controls.items()
        },
        not_measured=results.not_measured,
    )


@pytest.fixture(scope="session")
def judge() -> Judge:
    """The gate, with the plan that a run, or another one, makes of itself."""

    def by_itself(results: Results, criteria: Mapping[str, Criterion] = FREE, of: Results | None = None) -> Judgement:
        return judge_run(results, replace(plan_of_itself(of or results), criteria=criteria))

    return by_itself


@pytest.fixture(autouse=True, scope="module")
def runs_are_their_own_plans() -> Generator[None]:
    """Lets the outputs and commands judge as the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verify.planning.plan_of", plan_of_itself)
        patch.setattr("verify.checks.CRITERIA", FREE)
        yield


@pytest.fixture(scope="session")
def synthetic_run() -> Results:
    return Results(
        profile="quick",
        command="revdeq verify --profile quick --out results",
        started="2025-11-21T00:00:00+00:00",
        finished="2025-11-21T00:03:00+00:00",
        environment=_environment(),
        subject="revdeq",
        devices=("cpu",),
        complete=True,
        measurements=tuple(_rows()),
        curves=tuple(_curves()),
        not_measured=(NotMeasured(what="CUDA", why="no device on this machine"),),
        selftest=(
            FaultRecord(fault="honest", description="nothing is wrong", killed_by=(), expected=False),
            FaultRecord(fault="everything", description="each check fails", killed_by=tuple(CRITERIA)),
        ),
    )


@pytest.fixture(scope="session")
def one_curve_of_each_kind(synthetic_run: Results) -> tuple[Curve, ...]:
    """What the gate wants of the figures, and no more, for tests that are not about them."""
    return tuple({curve.name: curve for curve in synthetic_run.curves}.values())


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the sections out that draw, in tests that are about files and not about what stands in them."""
    kept = [section for section in SECTIONS if section.identifier in ("verdict", "measurements")]

    def build(dossier: Dossier) -> tuple[BuiltSection, ...]:
        return build_sections(dossier, kept)

    monkeypatch.setattr("reports.render.build_sections", build)


@pytest.fixture(scope="session")
def build_results(synthetic_run: Results) -> BuildResults:
    """The synthetic run with fields replaced, and rows changed where `row_change` returns another row or None."""

    def build(row_change: Callable[[Measurement], Measurement | None] | None = None, **changes: Any) -> Results:
        run = synthetic_run
        if row_change is not None:
            changed = [row_change(row) for row in run.measurements]
            run = replace(run, measurements=tuple(row for row in changed if row is not None))
        return replace(run, **changes)

    return build
