"""Plans made: what a profile, devices and a subject determine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verify.checks import CHECKS, CRITERIA, checks_for
from verify.checks._planned import lost_rows, planned_rows
from verify.claims import EVERYTHING, Claims, ClaimsError
from verify.environment import KEYS, SEED, version
from verify.judge.faults import shortfalls
from verify.plan import CurveKey, Plan, PlannedCurve, PlannedFault
from verify.planted.faults import planned_faults
from verify.profiles import PROFILES, Profile
from verify.result import CLAIMS, SUBJECT_FILES, FaultRecord, NotMeasured, Results
from verify.studies.registry import STUDIES, studies_left_out
from verify.subjects import SUBJECTS
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
    return plan(PROFILES[results.profile], results.devices, results.subject, absences(results), claimed_in(results))


def claimed_in(results: Results) -> Claims:
    """What the subject of a run claims: everything, where the run says nothing else that could be read."""
    if results.subject in SUBJECTS:
        return SUBJECTS[results.subject].claims
    try:
        return Claims.from_json(results.environment[CLAIMS]) if CLAIMS in results.environment else EVERYTHING
    except ClaimsError:
        return EVERYTHING


def has_gradients(profile: Profile, devices: Sequence[str], claims: Claims) -> bool:
    """Whether a profile judges any gradient of a subject that claims so much."""
    cases = (case for task in profile.tasks(tuple(devices)) for case in task.cases())
    found = ((case, check) for case in cases for check in checks_for(case) if check.topic == "gradients")
    return any(check.claimed(case, claims) for case, check in found)


def unclaimed(subject: str, claims: Claims) -> tuple[NotMeasured, ...]:
    """What a run says of the claims of its subject, where they are not everything."""
    return () if claims == EVERYTHING else (NotMeasured(what=f"what {subject} does not claim", why=claims.text),)


def plan(
    profile: Profile,
    devices: Sequence[str],
    subject: str,
    absent: Iterable[NotMeasured] = (),
    claims: Claims = EVERYTHING,
) -> Plan:
    """What a run must hold.

    Args:
        profile: the profile.
        devices: device types.
        subject: name of the subject.
        absent: what the machine or the command left out.
        claims: what the subject claims; where the profile judges no gradient of it no run meets the plan.
    """
    if not has_gradients(profile, devices, claims):
        return Plan(profile=f"{profile.name}, of a subject that claims a gradient of it", criteria=CRITERIA, rows={})
    tasks = profile.tasks(tuple(devices))
    pairs = [(case, check) for task in tasks for case in task.cases() for check in checks_for(case)]
    own = () if subject == "revdeq" else (SUBJECT_FILES,)
    said = {} if claims == EVERYTHING else {CLAIMS: claims.to_json()}
    studies = STUDIES if subject == "revdeq" else ()
    return Plan(
        profile=profile.name,
        criteria=CRITERIA,
        rows=planned_rows(pairs, subject_options(subject), claims),
        curves=dict[CurveKey, PlannedCurve](item for task in tasks for item in task.curves(claims)),
        studies=frozenset(name for study in studies for name in study.names),
        faults=_faults(),
        lost=lost_rows(pairs) if claims.reversible else {},
        not_measured=(*absent, *profile.left_out(), *studies_left_out(subject), *unclaimed(subject, claims)),
        environment={**dict.fromkeys((*KEYS, *own)), **said, "revdeq": version("revdeq"), "seed": SEED},
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
