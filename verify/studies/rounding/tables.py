"""The tables of docs/roundoff.md, measured anew: `python -m verify.studies.rounding.tables [--quick]`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from revdeq.arithmetic import bits_per_component
from verify.case import Case
from verify.checks import CRITERIA, Trial, measure
from verify.problems import get_problem, problem_names
from verify.rounding.bounds import bounded
from verify.rounding.envelope import BITWISE_PRECISIONS, PRECISIONS, TOLERANCES, envelope_frame
from verify.studies.rounding.cost import cost_curves
from verify.studies.rounding.ratios import ratio_frame, study_cases, summary
from verify.subject import RevdeqSubject


BOUND_BETAS = (0.3, 0.5, 0.8, 1.25)
BOUND_FORMATS = (
    ("float64", "float64"),
    ("float32", "float32"),
    ("float32", "float64"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float64"),
)
TIMED_BETAS = (0.5, 0.75, 0.8)
BITWISE_BETAS = (0.5, 2 / 3, 0.75, 0.8, 0.875, 1.125, 1.2, 1.25, 4 / 3, 1.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print every table."""
    parser = argparse.ArgumentParser(prog="python -m verify.studies.rounding.tables", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of the cases, in a minute")
    quick = bool(parser.parse_args(arguments).quick)
    torch.set_num_threads(1)
    cases = study_cases(problems=("dense-tanh", "attention"), betas=(0.5, 0.8), steps=(4,)) if quick else study_cases()
    frame = ratio_frame(cases)
    # More steps would take floating float32 states out of their range, to which the others are compared.
    steps, repeats = ((8,), 3) if quick else ((4, 8, 16), 9)
    tables = {
        "R by claim and formats": summary(frame).drop(columns=["C min", "C median", "C max"]),
        "C of the a-priori twin by problem, over gradients of args": constants(frame),
        "Errors over their proved bounds": bound_shares(BOUND_BETAS[1:3] if quick else BOUND_BETAS),
        "Envelope": envelope_summary(
            envelope_frame(
                betas=(0.5, 0.8, 1.2) if quick else (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.2, 1.5),
                precisions=(*PRECISIONS, *BITWISE_PRECISIONS),
                seeds=1 if quick else 3,
            )
        ),
        "Bits of the remainders per state component and half step": bits(),
        "Time of forward and backward over that of the floating mode": times(TIMED_BETAS, steps, repeats),
    }
    for title, table in tables.items():
        print(f"### {title}\n\n{markdown(table)}\n")


def constants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles of C per problem, over the gradients of args where states are as wide as f."""
    counted = frame.query("power != 'none' and ratio > 0 and leaf != 'z0' and dtype == state_dtype")
    counted = counted[counted.constant.notna()]
    table = counted.groupby("problem").constant.describe(percentiles=[0.1, 0.5, 0.9])
    return table[["count", "min", "10%", "50%", "90%", "max"]].reset_index()


def bound_shares(betas: Iterable[float], steps: Iterable[int] = (1, 2, 4, 8)) -> pd.DataFrame:
    """Return how many errors were compared with a proved bound, and the greatest share of it, per formats."""
    rows: list[dict[str, object]] = []
    names = [name for name in problem_names("full") if bounded(get_problem(name))]
    for name in names:
        for beta in betas:
            for num_steps in steps:
                for dtype, state_dtype in BOUND_FORMATS:
                    case = Case(name, beta, num_steps, dtype, state_dtype)
                    for row in measure("rounding-bound", Trial(case, RevdeqSubject(), get_problem(name))):
                        if row.status == "measured":
                            rows.append({"f": dtype, "states": state_dtype, "share": row.measured})
    table = pd.DataFrame(rows).groupby(["f", "states"]).share.agg(["count", "median", "max"]).reset_index()
    table["crossed"] = table["max"] > CRITERIA["rounding-bound"].threshold
    return table


def envelope_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return, per formats, how many settings were confirmed, how many are safe, and how far inside they lie."""
    confirmed = frame[frame.measured.notna()].astype({"inside": float, "safe": bool})
    grouped = confirmed.groupby(["dtype", "state_dtype"])
    table = grouped.agg(
        confirmed=("safe", "size"), safe=("safe", "sum"), median_inside=("inside", "median"), most=("inside", "max")
    ).reset_index()
    table.insert(2, "tolerance", table.dtype.map(TOLERANCES))
    return table


def bits() -> pd.DataFrame:
    """Return what a remainder takes for each beta, and what it holds: log2 m."""
    m = [round(1 / abs(1 - beta)) for beta in BITWISE_BETAS]
    packed = [bits_per_component(beta) for beta in BITWISE_BETAS]
    return pd.DataFrame({"beta": BITWISE_BETAS, "m": m, "bits": packed, "log2 m": np.log2(m)})


def times(betas: Sequence[float], steps: Sequence[int], repeats: int) -> pd.DataFrame:
    """Return the ratio of each mode's time to the floating mode's, from one run."""
    rows = [
        {"mode": curve.adjoint, "beta": curve.beta}
        | {f"N={n:g}": ratio for n, ratio in zip(curve.x, curve.y, strict=True)}
        for curve in cost_curves(betas, steps, repeats)
        if curve.name == "mode-time"
    ]
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers with three digits."""
    head = [str(name) for name in table.columns]
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in table.itertuples(index=False))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
