"""What a run says of itself: when, where, on which code, of which subject; and what a judge may ask of it."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from verify.judge.finding import Finding, about_run
from verify.plan import Plan
from verify.result import CLAIMS, SUBJECT_FILES, Results


_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|unknown")
_SOURCE = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+(\.\w+)+([+-][\w.]+)?|not installed")
_SECOND = timedelta(seconds=1)
"""To which times are written."""


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a judge asks of a run besides its plan.

    Args:
        commit: the commit that it must be of, or the beginning of one.
        max_age: how old it may be.
        now: the moment of judging, with offset; None where ages are not asked for.
    """

    commit: str | None = None
    max_age: timedelta | None = None
    now: datetime | None = None


def judge_run(results: Results, plan: Plan, demands: Demands) -> Iterator[Finding]:
    """What is wrong with the fields of the run itself.

    Args:
        results: the run.
        plan: of the run.
        demands: what is asked besides.
    """
    if results.profile != plan.profile:
        yield about_run("run", f"profile {plan.profile!r}", f"the profile is {results.profile!r}")
    for why in (
        *_times(results, demands),
        *_command(results),
        *_devices(results),
        *_environment(results.environment, plan),
        *_left_out(results, plan),
        *_commit(results, demands),
    ):
        yield about_run("run", "fields as a run writes them", why)


def _times(results: Results, demands: Demands) -> Iterator[str]:
    started, finished = _moment(results.started), _moment(results.finished)
    for name, text, moment in (("started", results.started, started), ("finished", results.finished, finished)):
        if moment is None:
            yield f"{name} is {text!r}, which is no ISO 8601 time with offset, as 2026-01-31T12:00:00+00:00"
    if started is None or finished is None:
        return
    if not started <= finished:
        yield f"it finished at {results.finished}, before it started at {results.started}"
    lasted = (finished - started + _SECOND).total_seconds()
    seconds = [row.seconds for row in results.measurements if row.seconds is not None]
    if not all(map(math.isfinite, seconds)) or not max(seconds, default=0.0) <= lasted:
        yield f"a row took {max(seconds):.6g} s, and the whole run {lasted:.6g} s"
    if demands.now is None:
        return
    if not finished <= demands.now + _SECOND:
        yield f"it finished at {results.finished}, which is in the future"
    if demands.max_age is not None and not demands.now - finished <= demands.max_age:
        yield f"it finished at {results.finished}, longer ago than the {demands.max_age} that are allowed"


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    # One way to write a moment, that of the run: any other was not written by one.
    offset = moment.utcoffset()
    written = offset is not None and moment.isoformat(timespec="seconds") == text
    return moment.astimezone(UTC) if written else None


def _command(results: Results) -> Iterator[str]:
    if not results.command or not results.command.isprintable():
        yield f"the command is {results.command!r}"
        return
    try:
        words = shlex.split(results.command)
    except ValueError:
        yield f"the command {results.command!r} cannot be typed"
        return
    if words[1:2] != ["verify"]:
        return
    asked = {"--profile": results.profile, "--subject": results.subject}
    defaults = {"--profile": "quick", "--subject": "revdeq"}
    for option, said in asked.items():
        given = _option(words, option) or defaults[option]
        if given != said:
            yield f"the command asks for {option} {given}, and the results say {said}"


def _option(words: list[str], option: str) -> str | None:
    for place, word in enumerate(words):
        if word == option:
            return words[place + 1] if place + 1 < len(words) else ""
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _devices(results: Results) -> Iterator[str]:
    present = results.environment.get("devices")
    entries = cast("list[Any]", present) if isinstance(present, list) else []
    available: set[str] = set()
    names: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict) or set(cast("dict[str, Any]", entry)) != {
            "device",
            "name",
            "available",
            "reason",
        }:
            yield f"the environment has the device {entry!r}"
            continue
        device = cast("dict[str, Any]", entry)
        texts = [device["device"], device["name"], device["reason"]]
        if not all(isinstance(text, str) for text in texts) or not isinstance(device["available"], bool):
            yield f"the environment has the device {entry!r}"
            continue
        names.append(device["device"])
        if device["available"] == bool(device["reason"]) or device["available"] != bool(device["name"]):
            yield f"the device {device['device']!r} does not say whether it is there, or why it is not"
        if device["available"]:
            available.add(device["device"].partition(":")[0])
    if len(set(names)) != len(names) or not {"cpu"} <= {name.partition(":")[0] for name in names}:
        yield f"the environment has the devices {names}: a CPU is always there, and each is named once"
    if not results.devices or len(set(results.devices)) != len(results.devices):
        yield f"the run measured on the devices {list(results.devices)}"
    absent = [device for device in results.devices if device not in available]
    if absent:
        yield f"the run measured on {', '.join(absent)}, which its environment does not have"


def _environment(environment: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    odd = sorted(map(str, set(environment) ^ set(plan.environment)))
    if plan.environment and odd:
        yield f"the environment says more, or less, than a run does: {', '.join(odd[:3])}"
    for key, value in plan.environment.items():
        if value is None:
            continue
        if key not in environment or type(environment[key]) is not type(value) or environment[key] != value:
            yield f"the environment's {key} is {environment.get(key)!r}, and this judge knows the plan of {value!r}"
    texts = {"commit": _COMMIT, "source": _SOURCE, "python": _VERSION, "torch": _VERSION}
    for key, form in texts.items():
        value = environment.get(key)
        if not isinstance(value, str) or form.fullmatch(value) is None:
            yield f"the environment's {key} is {value!r}"
    for key, value in environment.items():
        wrong = (
            (key in ("dirty", "deterministic") and not isinstance(value, bool))
            or (key in ("threads", "processors") and (type(value) is not int or value < 1))
            or (key == SUBJECT_FILES and not _are_digests(value))
            or (key == "tf32" and not _are_switches(value))
            or (key in ("platform", "machine") and not (isinstance(value, str) and value and value.isprintable()))
            or (key not in _OTHER_KINDS and not (isinstance(value, str) and _VERSION.fullmatch(value)))
        )
        if wrong:
            yield f"the environment's {key} is {value!r}"


_OTHER_KINDS = (
    "commit",
    "dirty",
    "source",
    "platform",
    "machine",
    "processors",
    "devices",
    "threads",
    "tf32",
    "deterministic",
    "seed",
    SUBJECT_FILES,
    CLAIMS,
)
"""Keys of an environment that are not versions of libraries."""


def _are_switches(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    switches = cast("dict[str, object]", value)
    return set(switches) == {"matmul", "cudnn"} and all(isinstance(one, bool) for one in switches.values())


def _are_digests(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    digests = cast("dict[str, object]", value).values()
    return all(isinstance(one, str) and _SOURCE.fullmatch(one) for one in digests)


def _left_out(results: Results, plan: Plan) -> Iterator[str]:
    said = [(item.what, item.why) for item in results.not_measured if not item.failed]
    wanted = [(item.what, item.why) for item in plan.not_measured]
    if sorted(said) != sorted(wanted):
        lost, made = [item for item in wanted if item not in said], [item for item in said if item not in wanted]
        yield f"of what was not measured it lacks {lost[:2]} and has {made[:2]}, or says something twice"


def _commit(results: Results, demands: Demands) -> Iterator[str]:
    if demands.commit is None:
        return
    commit = str(results.environment.get("commit"))
    if not demands.commit or not commit.startswith(demands.commit):
        yield f"it is of commit {commit}, asked for is {demands.commit}"
    if results.environment.get("dirty") is not False:
        yield "its sources were changed since their commit"
