"""Plans made: what a profile, devices and a subject determine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verify.checks import CHECKS, CRITERIA, checks_for
from verify.checks._planned import lost_rows, planned_rows
from verify.environment import KEYS, SEED, version
from verify.judge.faults import shortfalls
from verify.plan import CurveKey, Plan, PlannedCurve, PlannedFault
from verify.planted.faults import planned_faults
from verify.profiles import PROFILES, Profile
from verify.result import SUBJECT_FILES, FaultRecord, NotMeasured, Results
from verify.studies.registry import STUDIES, studies_left_out
from verify.trial.bench import subject_options


CUDA = "CUDA"
"""What a run without a CUDA device says that it left out."""


def plan_of(results: Results) -> Plan:
    """What a run must hold by its own profile, devices and subject.

    Args:
        results: the run. A profile that does not exist has an empty plan, which no run meets.
    """
    if results.profile not in PROFILES:
        return Plan(profile=f"one of {', '.join(PROFILES)}", criteria=CRITERIA, rows={})
    return plan(PROFILES[results.profile], results.devices, results.subject, absences(results))


def plan(profile: Profile, devices: Sequence[str], subject: str, absent: Iterable[NotMeasured] = ()) -> Plan:
    """What a run must hold.

    Args:
        profile: the profile.
        devices: device types.
        subject: name of the subject.
        absent: what the machine or the command left out.
    """
    tasks = profile.tasks(tuple(devices))
    pairs = [(case, check) for task in tasks for case in task.cases() for check in checks_for(case)]
    own = () if subject == "revdeq" else (SUBJECT_FILES,)
    studies = STUDIES if subject == "revdeq" else ()
    return Plan(
        profile=profile.name,
        criteria=CRITERIA,
        rows=planned_rows(pairs, subject_options(subject)),
        curves=dict[CurveKey, PlannedCurve](item for task in tasks for item in task.curves()),
        studies=frozenset(name for study in studies for name in study.names),
        faults=_faults(),
        lost=lost_rows(pairs),
        not_measured=(*absent, *profile.left_out(), *studies_left_out(subject)),
        environment={**dict.fromkeys((*KEYS, *own)), "revdeq": version("revdeq"), "seed": SEED},
    )


def selftest_shortfalls(records: Iterable[FaultRecord]) -> tuple[str, ...]:
    """What a selftest falls short of, one sentence each: a fault that survives, a control killed, an idle check."""
    return tuple(shortfalls(records, Plan(profile="", criteria=CRITERIA, rows={}, faults=_faults())))


def _faults() -> dict[str, PlannedFault]:
    return planned_faults({name: check.kills for name, check in CHECKS.items()})


def absences(results: Results) -> tuple[NotMeasured, ...]:
    """What a run without CUDA must say, in the words of its own machine."""
    if "cuda" in results.devices:
        return ()
    entries = results.environment["devices"]
    known = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    reasons = [str(entry.get("reason")) for entry in known if entry.get("device") == "cuda"]
    return (absence(reasons[0] if reasons else ""),)


def absence(reason: str) -> NotMeasured:
    """What is said of CUDA where nothing was measured on it.

    Args:
        reason: why there is none; "" where it was left out.
    """
    return NotMeasured(what=CUDA, why=reason or "left out: the run was asked for the CPU alone")
