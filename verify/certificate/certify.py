"""Make a certificate: of a function's fixed point, of its gradients, and of what torch returns for them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.certificate.advice import advise
from verify.certificate.answers import Finding
from verify.certificate.certificate import Certificate
from verify.certificate.comparison import TorchComparison
from verify.certificate.confirmation import Confirmation, Loss, confirm, fixed_point_loss, n_step_loss
from verify.certificate.direction import certify_direction
from verify.certificate.graph_json import count_operations, graph_to_json
from verify.certificate.posed import cotangents_of, joined, scope_of
from verify.certificate.proof import absence_proof, fixed_point_proof, gradient_texts, n_step_proof, texts
from verify.certificate.settings import Settings
from verify.certificate.source import Source, source_from
from verify.certificate.stages import FixedPointStage, StepsStage, fixed_point_stage, n_step_stage
from verify.reference.arithmetic import Array
from verify.reference.graph import Traced, check_covered, trace


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
    """One certificate in the making: what has been found so far."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seconds: dict[str, float] = {}
        self._findings: list[Finding] = []
        self._confirmations: list[dict[str, Any]] = []
        self._torch = TorchComparison(settings, self._timed)

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
        check_covered(traced.forward)
        check_covered(traced.vjp)
        cotangents = cotangents_of(traced, settings)
        flat = (joined(traced, cotangents[0]), joined(traced, cotangents[1]))
        size = sum(int(np.prod(traced.values[name].shape)) for name in traced.state)
        if size > settings.max_components:
            return self._direction_only(source, traced, cotangents, flat, size)
        fixed: FixedPointStage = self._timed(
            "proving the fixed point",
            lambda: fixed_point_stage(traced, settings, flat[0] + flat[1], with_contraction=True),
        )
        near = fixed.contraction
        constant = float(near.constant) if near is not None and near.constant.is_finite() else 1.0
        steps: StepsStage = self._timed("enclosing the N steps", lambda: n_step_stage(traced, settings, flat, constant))
        self._findings += [*fixed.findings, *steps.findings]
        self._confirm(traced, fixed, steps, flat)
        self._torch.run(source, traced, fixed, steps, cotangents, flat, constant)
        proofs = self._timed("writing the proofs", lambda: self._proofs(traced, fixed, steps, flat))
        rows = tuple(self._torch.rows)
        eigenvalues = None if near is None else near.eigenvalues
        return Certificate(
            scope=scope,
            bits=max(fixed.function.ops.bits, steps.function.ops.bits),
            ties=fixed.function.ops.ties + steps.function.ops.ties,
            contraction=_contraction_values(fixed),
            values=_values(traced, fixed, steps, settings.digits),
            advice=advise(eigenvalues, settings.beta, settings.num_steps, rows, traced.casts),
            proofs=tuple(proofs),
            **self._common(source, traced),
        )

    def _common(self, source: Source, traced: Traced) -> dict[str, Any]:
        settings = self._settings
        return {
            "source": source.name,
            "replay": f"revdeq certify {source.name} --beta {settings.beta!r} --steps {settings.num_steps} "
            f"--digits {settings.digits} --out DIR",
            "beta": settings.beta,
            "num_steps": settings.num_steps,
            "digits": settings.digits,
            "state": {name: list(traced.values[name].shape) for name in traced.state},
            "leaves": {name: list(traced.values[name].shape) for name in traced.leaves},
            "operations": count_operations(traced.forward),
            "casts": traced.casts,
            "findings": tuple(self._findings),
            "confirmations": tuple(self._confirmations),
            "bits_right": tuple(self._torch.rows),
            "not_run": tuple(self._torch.not_run),
            "seconds": self._seconds,
            "environment": _environment(),
            "graph": graph_to_json(traced.forward),
        }

    def _confirm(
        self,
        traced: Traced,
        fixed: FixedPointStage,
        steps: StepsStage,
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        settings = self._settings

        def one(loss: Loss, gradient: Mapping[str, Array], claim: str, ties: int) -> None:
            found: Confirmation = self._timed(
                "confirming by differences",
                lambda: confirm(traced, loss, gradient, settings.confirmation_digits, claim, ties, settings.progress),
            )
            self._findings.append(found.finding)
            self._confirmations.append(
                {
                    "claim": claim,
                    "by_differences": found.difference,
                    "certified": found.gradient,
                    "digits": found.digits,
                    "error_estimate": found.error_estimate,
                }
            )

        if fixed.enclosure is not None and fixed.gradient:
            loss = fixed_point_loss(traced, fixed.enclosure, flat[0] + flat[1])
            one(loss, fixed.gradient, "implicit gradient", fixed.function.ops.ties)
        if steps.steps is not None:
            loss = n_step_loss(traced, settings.beta, settings.num_steps, *flat)
            one(loss, steps.steps.gradient, "N-step gradient", steps.function.ops.ties)

    def _proofs(
        self,
        traced: Traced,
        fixed: FixedPointStage,
        steps: StepsStage,
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> list[dict[str, Any]]:
        settings = self._settings
        proofs: list[dict[str, Any]] = []
        if fixed.absence is not None:
            proofs.append(absence_proof(traced, fixed.absence, fixed.function.start, fixed.function.ops.bits))
        digits = settings.digits
        for stored_as, problem, of_point, of_steps in (("", traced, fixed, steps), *self._torch.truths):
            named = {"stored_as": stored_as} if stored_as else {}
            if of_point.enclosure is not None and of_point.function.traced is problem:
                total, near = flat[0] + flat[1], of_point.contraction
                proof = fixed_point_proof(problem, of_point.enclosure, near, total, of_point.gradient, digits)
                proofs.append({**named, **proof})
            if of_steps.steps is not None:
                start, bits = of_steps.function.start, of_steps.function.ops.bits
                proof = n_step_proof(problem, bits, settings.beta, start, flat, of_steps.steps, digits)
                proofs.append({**named, **proof})
        return proofs

    def _direction_only(
        self,
        source: Source,
        traced: Traced,
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
        size: int,
    ) -> Certificate:
        """The state is too large for a whole certificate: one directional derivative of the N-step map."""
        settings = self._settings
        found = self._timed(
            "differentiating along one direction",
            lambda: certify_direction(source, traced, settings, cotangents, flat),
        )
        self._findings += found.findings
        self._confirmations += [] if found.row is None else [found.row]
        self._torch.not_run += found.not_run
        return Certificate(
            scope=f"one direction: the state has {size} components, above max_components = {settings.max_components}",
            bits=found.bits,
            ties=found.ties,
            contraction=None,
            values={},
            advice=(),
            proofs=found.proofs,
            **self._common(source, traced),
        )


def _contraction_values(fixed: FixedPointStage) -> dict[str, Any] | None:
    near = fixed.contraction
    if near is None:
        return None
    return {
        "constant": float(near.constant.upper()),
        "radius": near.radius,
        "lower": float(near.at_fixed_point[0]),
        "upper": float(near.at_fixed_point[1]),
        "spectral_radius": float(near.spectral_radius),
        "eigenvalues": [[value.real, value.imag] for value in near.eigenvalues.tolist()],
    }


def _values(traced: Traced, fixed: FixedPointStage, steps: StepsStage, digits: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if fixed.enclosure is not None:
        values["z_star"] = texts(fixed.enclosure.solution, digits)
    if fixed.gradient is not None:
        values["implicit"] = gradient_texts(fixed.gradient, traced.state, digits)
    if steps.steps is not None:
        values["z_n"] = texts(steps.steps.z, digits)
        values["n_step"] = gradient_texts(steps.steps.gradient, traced.state, digits)
    return values


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("revdeq", "torch", "numpy", "mpmath", "python-flint"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
