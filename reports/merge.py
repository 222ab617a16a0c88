"""Several results files as one report: side by side, never averaged, and what does not fit is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reports.dossier import Dossier, Run
from reports.errors import ReportError
from reports.judging import judged
from reports.text import plural
from verify.gate import Judgement
from verify.plan import row_key
from verify.result import Results


def merge(
    results: Sequence[Results], judgements: Sequence[Judgement] | None = None, recorded: Sequence[Results] = ()
) -> Dossier:
    """Put runs side by side.

    Every run keeps its own rows and its own verdict: a row that two runs hold is shown twice, so that a failure cannot
    hide behind a later success.

    Args:
        results: at least one run.
        judgements: the verdicts of `results`, as many; by default the gate judges each run here.
        recorded: runs of other machines (see `reports.evidence`), judged here.

    Returns:
        The runs with unique labels, and remarks on duplicates, differing commits, versions and subjects.

    Raises:
        ReportError: if there is no run, or not as many judgements as runs.
    """
    if not results:
        raise ReportError("no results were given, at least one run is needed: make one with revdeq verify --out DIR.")
    verdicts = [judged(one) for one in results] if judgements is None else list(judgements)
    if len(verdicts) != len(results):
        raise ReportError(
            f"{plural(len(verdicts), 'judgement')} for {plural(len(results), 'run')} were given: give one for each run."
        )
    everything = [*results, *recorded]
    labels = _labels(everything)
    runs = [
        Run(label, one, verdict, recorded=place >= len(results))
        for place, (label, one, verdict) in enumerate(
            zip(labels, everything, [*verdicts, *(judged(one) for one in recorded)], strict=True)
        )
    ]
    return Dossier(tuple(runs), tuple(_remarks(runs)))


def run_devices(results: Results) -> list[str]:
    """The devices on which rows were measured, by name."""
    return sorted({row.device for row in results.measurements if row.device})


def _labels(results: Sequence[Results]) -> list[str]:
    names = [f"{'+'.join(run_devices(one)) or 'no device'} {one.profile}" for one in results]
    if len(names) == 1:
        return names
    seen: Counter[str] = Counter()
    labels: list[str] = []
    for name in names:
        seen[name] += 1
        labels.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return labels


def _remarks(runs: Sequence[Run]) -> list[str]:
    remarks: list[str] = []
    for key in ("commit", "revdeq", "torch", "python"):
        values = {run.label: str(run.results.environment[key]) for run in runs}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{label}: {value[:12]}" for label, value in values.items())
            remarks.append(f"The runs differ in {key} ({said}).")
    subjects = sorted({run.results.subject for run in runs})
    if len(subjects) > 1:
        remarks.append(f"The runs verify different subjects ({', '.join(subjects)}); their rows do not compare.")
    for run in runs:
        if run.results.environment["dirty"]:
            remarks.append(f"The run {run.label} had uncommitted changes; its commit does not say all of its code.")
        if not run.results.complete:
            remarks.append(f"The run {run.label} is not complete: it was interrupted or measured a part only.")
    counted = Counter(key for run in runs for key in {row_key(row) for row in run.results.measurements})
    shared = sum(times > 1 for times in counted.values())
    if shared:
        remarks.append(
            f"{plural(shared, 'row')} {'was' if shared == 1 else 'were'} measured by more than one run; "
            "each is shown once per run and none replaces another."
        )
    return remarks
