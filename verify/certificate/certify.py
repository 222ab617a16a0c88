"""Make a certificate: of a function's fixed point, of its gradients, and of what torch returns for them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from verify.certificate.advice import advise
from verify.certificate.certificate import Certificate
from verify.certificate.comparison import TorchComparison, Truth
from verify.certificate.departures import departure_in
from verify.certificate.direction import certify_direction
from verify.certificate.graph_json import count_operations, graph_to_json
from verify.certificate.kernel.conclusions import conclusions
from verify.certificate.kernel.numbers import unpacked
from verify.certificate.kernel.problem import Problem, Proved
from verify.certificate.posed import check_finite, cotangents_of, head_json, scope_of
from verify.certificate.proof import problem_json, proof_of
from verify.certificate.recorder import Recorder
from verify.certificate.settings import Settings
from verify.certificate.source import Source, source_from
from verify.certificate.stages import Part, Task, fixed_point_part, n_step_part
from verify.certificate.torch_run import AS_GIVEN
from verify.reference.graph import Traced, UnsupportedOperationError, check_covered, trace


def certify(
    source: str | Callable[[], Any] | tuple[Callable[[Any, Any], Any], Any, Any],
    *,
    beta: float = 0.5,
    num_steps: int = 8,
    digits: int = 30,
    **options: Any,
) -> Certificate:
    """Certify the equilibrium of f, its implicit and its N-step gradient, and count the bits that torch gets right.

    Args:
        source: "module:factory", a factory, or its result (function, z0, args).
        beta: relaxation parameter.
        num_steps: N.
        digits: decimal digits that every enclosure must have.
        options: further fields of `Settings`.

    Returns:
        The certificate; `write` it, and check it again with recheck.py.

    Raises:
        SourceError: the source does not give (function, z0, args).
        TracingError: the function is not one graph: data-dependent control flow, random numbers, a wrong result, ...
        UnsupportedOperationError: it uses an operation that the interpreter has no rule for.
        TypeError, ValueError: a setting is not as `Settings` says.
    """
    settings = Settings(beta=beta, num_steps=num_steps, digits=digits, **options)
    return certify_source(source_from(source), settings)


def certify_source(source: Source, settings: Settings) -> Certificate:
    """`certify` for a source that is loaded and settings that are made.

    Args:
        source: function, start and args.
        settings: what to certify and how hard to try.
    """
    return _Run(settings).certificate(source)


class _Run:
    """One certificate in the making."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seconds: dict[str, float] = {}
        self._said: dict[str, Any] = {}
        self._recorders: list[tuple[Traced, Recorder, str]] = []
        self._problems: list[dict[str, Any]] = []

    def _timed(self, stage: str, function: Callable[[], Any]) -> Any:
        self._settings.progress(stage)
        began = time.perf_counter()
        result = function()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - began
        return result

    def certificate(self, whole: Source) -> Certificate:
        """Run all stages."""
        settings = self._settings
        source, scope = scope_of(whole, self._settings)
        traced: Traced = self._timed("recording the function", lambda: trace(source.function, source.z0, source.args))
        check_finite(traced)
        check_covered(traced.forward)
        cotangents = cotangents_of(traced, settings)
        self._said = {
            "source": source.name,
            "replay": f"revdeq certify {source.name} --beta {settings.beta!r} --steps {settings.num_steps} "
            f"--digits {settings.digits} --out DIR",
            **head_json(traced, settings, cotangents),
            "operations": count_operations(traced.forward),
            "casts": list(traced.casts),
            "cuts": list(traced.cuts),
            "environment": _environment(),
            "graph": graph_to_json(traced.forward),
        }
        task = self._task(traced, "")
        size = sum(int(np.prod(traced.values[name].shape)) for name in traced.state)
        if size > settings.max_components:
            return self._direction_only(source, task, cotangents, size)
        return self._whole(source, scope, task, cotangents)

    def _task(self, traced: Traced, stored_as: str) -> Task:
        """The task of proving a problem; functions with the same graph share a program."""
        place = next((n for n, entry in enumerate(self._recorders) if entry[0].forward is traced.forward), None)
        if place is None:
            place = len(self._recorders)
            self._recorders.append((traced, Recorder(traced), _uncovered(traced)))
        _, recorder, uncovered = self._recorders[place]
        self._problems.append(problem_json(traced, stored_as, place))
        return Task(traced, recorder, Problem(self._said, self._problems[-1]), uncovered)

    def _whole(self, source: Source, scope: str, task: Task, cotangents: Any) -> Certificate:
        settings = self._settings
        fixed: Part = self._timed("proving the fixed point", lambda: fixed_point_part(task, settings))
        near = fixed.contraction
        constant = float(near.constant) if near is not None and near.constant.is_finite() else 1.0
        steps: Part = self._timed("enclosing the N steps", lambda: n_step_part(task, settings, constant))
        runs = TorchComparison(settings, self._timed, self._task, Truth("", task, fixed, steps))
        runs.run(source, cotangents, constant)
        proofs: list[dict[str, Any]] = []
        proved: list[Proved] = []
        places: dict[tuple[int, str], int] = {}
        for number, truth in enumerate(runs.truths):
            for kind, part in (("fixed_point", truth.fixed), ("n_step", truth.steps)):
                proof = proof_of(part, number, truth.task.problem.digits, main=number == 0)
                if proof is not None and part.proved is not None:
                    places[number, kind] = len(proofs)
                    proofs.append(proof)
                    proved.append(part.proved)
        measured = [
            {**{key: value for key, value in run.items() if key not in ("truth", "kind")}}
            | {"proof": places[run["truth"], run["kind"]]}
            for run in runs.measured
        ]
        return self._concluded(
            source,
            task.traced,
            proved,
            scope=scope,
            bits=max(fixed.function.bits, steps.function.bits),
            proofs=proofs,
            measured=measured,
            given_up={**fixed.given_up, **steps.given_up},
            not_run=runs.not_run,
            eigenvalues=[] if near is None else [[value.real, value.imag] for value in near.eigenvalues.tolist()],
        )

    def _direction_only(self, source: Source, task: Task, cotangents: Any, size: int) -> Certificate:
        """The state is too large for a whole certificate: one directional derivative of the N-step map."""
        settings = self._settings
        found = self._timed(
            "differentiating along one direction", lambda: certify_direction(source, task, settings, cotangents)
        )
        return self._concluded(
            source,
            task.traced,
            found.proved,
            scope=f"one direction: the state has {size} components, above max_components = {settings.max_components}",
            bits=found.bits,
            proofs=found.proofs,
            measured=[],
            given_up=found.given_up,
            not_run=found.not_run,
            eigenvalues=[],
        )

    def _concluded(self, source: Source, traced: Traced, proved: list[Proved], **parts: Any) -> Certificate:
        said = {**self._said, **parts, "problems": self._problems}
        said["programs"] = [recorder.program() for _, recorder, _ in self._recorders]
        said |= conclusions(said, proved)
        said["departures"] = self._timed("looking where bits are lost", lambda: _departures(source, traced, said))
        said["seconds"] = self._seconds
        said["advice"] = advise(Certificate(said))
        return Certificate(said)


FEW_BITS = 8
"""Bits, or half of those that its dtype stores if that is less, that a gradient of N steps may lack before it is asked
where they were lost."""


def _departures(source: Source, traced: Traced, said: dict[str, Any]) -> list[str]:
    """For each dtype in which bits are missing, the first operation that is worse than rounding, or that none is."""
    found: list[str] = []
    for run in said["measured"]:
        same = ("dtype", "device", "adjoint")
        rows = [row for row in said["bits_right"] if all(row[key] == run[key] for key in same)]
        stored = run["stored"]
        enough = stored - min(FEW_BITS, stored / 2)
        if run["adjoint"] != "reversible" or all(float(row["bits"]) >= enough for row in rows):
            continue
        name = run["dtype"]
        dtype = None if name == AS_GIVEN else getattr(torch, name)
        search = departure_in(source, traced, dtype, run["device"], unpacked(run["z"]))
        if search.first is not None:
            found.append(f"in {name} the first operation that is worse than its rounding is {search.first}")
        else:
            found.append(
                f"in {name} each of the {search.checked} operations that could be checked is as good as rounding "
                f"allows ({search.unchecked} could not), so the bits are lost to f's sensitivity"
            )
    return found


def _uncovered(traced: Traced) -> str:
    """Why torch's backward cannot be compared, or ""."""
    if traced.backward is None:
        return traced.no_backward
    try:
        check_covered(traced.vjp)
    except UnsupportedOperationError as error:
        return f"torch's backward cannot be compared with f's derivative: {error}"
    return ""


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("revdeq", "torch", "numpy", "mpmath", "python-flint"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
