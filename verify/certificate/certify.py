"""Make a certificate: of a function's fixed point, of its gradients, and of what torch returns for them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_flatten

from verify.certificate.advice import advise
from verify.certificate.answers import Finding
from verify.certificate.bits import BitsRight, all_bits_right, bits_right, worst_of
from verify.certificate.certificate import Certificate, LeafBits
from verify.certificate.confirmation import Confirmation, Loss, confirm, fixed_point_loss, n_step_loss
from verify.certificate.direction import certify_direction
from verify.certificate.graph_json import count_operations, graph_to_json
from verify.certificate.proof import fixed_point_proof, gradient_texts, n_step_proof, texts
from verify.certificate.settings import Settings
from verify.certificate.source import Source, SourceError, first_samples, source_from
from verify.certificate.stages import FixedPointStage, StepsStage, fixed_point_stage, n_step_stage
from verify.certificate.torch_run import AdjointName, TorchRunError, as_stored_in, run_in_torch
from verify.reference.arithmetic import Array
from verify.reference.graph import Traced, check_covered, trace
from verify.reference.graph.conversion import exact_values


STORED_BITS = {torch.float64: 53, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}


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
        self._rows: list[LeafBits] = []
        self._not_run: list[dict[str, str]] = []
        self._cached: dict[str, tuple[FixedPointStage | None, StepsStage]] = {}

    def _timed(self, stage: str, function: Callable[[], Any]) -> Any:
        self._settings.progress(stage)
        began = time.perf_counter()
        result = function()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - began
        return result

    def certificate(self, whole: Source) -> Certificate:
        """Run all stages."""
        settings = self._settings
        source, scope = self._scope(whole)
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
        self._run_torch(source, traced, fixed, steps, cotangents, flat, constant)
        proofs = self._timed("writing the proofs", lambda: self._proofs(traced, fixed, steps, flat))
        rows = tuple(self._rows)
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
            "bits_right": tuple(self._rows),
            "not_run": tuple(self._not_run),
            "seconds": self._seconds,
            "environment": _environment(),
            "graph": graph_to_json(traced.forward),
        }

    def _scope(self, source: Source) -> tuple[Source, str]:
        """All samples, those that were asked for, or as many as max_components allows, at least one."""
        settings = self._settings
        z0 = source.z0
        batched = isinstance(z0, torch.Tensor) and z0.ndim >= 2 and z0.shape[0] >= 1
        if not batched:
            if settings.samples is not None:
                raise SourceError("samples was given but z0 is not one tensor with the batch in front; leave it out")
            return source, "whole"
        batch = int(z0.shape[0])
        width = z0.numel() // batch
        fits = max(1, settings.max_components // max(1, width))
        wanted = min(batch, settings.samples if settings.samples is not None else fits)
        if wanted == batch:
            return source, "whole"
        part = first_samples(source, wanted)
        _check_independent(source, part, wanted)
        return part, f"the first {wanted} of {batch} samples"

    def _confirm(
        self,
        traced: Traced,
        fixed: FixedPointStage,
        steps: StepsStage,
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        settings = self._settings

        def one(loss: Loss, gradient: Mapping[str, Array], claim: str) -> None:
            found: Confirmation = self._timed(
                "confirming by differences",
                lambda: confirm(traced, loss, gradient, settings.confirmation_digits, claim),
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
            one(fixed_point_loss(traced, fixed.enclosure, flat[0] + flat[1]), fixed.gradient, "implicit gradient")
        if steps.steps is not None:
            loss = n_step_loss(traced, settings.beta, settings.num_steps, *flat)
            one(loss, steps.steps.gradient, "N-step gradient")

    def _run_torch(
        self,
        source: Source,
        traced: Traced,
        fixed: FixedPointStage,
        steps: StepsStage,
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
        constant: float,
    ) -> None:
        settings = self._settings
        for dtype in settings.dtypes:
            stored = as_stored_in(traced, dtype)
            name = str(dtype).removeprefix("torch.")
            if stored is traced:
                truths = fixed, steps
            else:
                # The dtype rounds the inputs, so its run poses another problem, which gets its own truth.
                truths = self._timed(
                    f"enclosing the problem as {name} stores it",
                    lambda stored=stored: (
                        fixed
                        if fixed.enclosure is None
                        else fixed_point_stage(stored, _looser(settings), flat[0] + flat[1], with_contraction=False),
                        n_step_stage(stored, _looser(settings), flat, constant),
                    ),
                )
            for device in settings.devices:
                if device != "cpu" and not _is_there(device):
                    self._not_run.append({"what": f"{name} on {device}", "why": "there is no such device here"})
                    continue
                self._compare(source, stored, dtype, device, truths, cotangents)

    def _compare(
        self,
        source: Source,
        traced: Traced,
        dtype: torch.dtype,
        device: str,
        truths: tuple[FixedPointStage, StepsStage],
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    ) -> None:
        settings = self._settings
        fixed, steps = truths
        adjoints: list[tuple[AdjointName, str, Mapping[str, Array] | None, Array | None]] = [
            ("reversible", "n-step", steps.steps and steps.steps.gradient, steps.steps and steps.steps.z),
            ("implicit", "fixed-point", fixed.gradient, fixed.enclosure and fixed.enclosure.solution),
        ]
        name = str(dtype).removeprefix("torch.")
        for adjoint, target, truth, state in adjoints:
            if truth is None or state is None:
                self._not_run.append({"what": f"{name} {adjoint} on {device}", "why": "its truth was not certified"})
                continue
            if not truth:
                self._not_run.append({"what": f"{name} {adjoint} on {device}", "why": "it has no leaf but the start"})
                continue
            try:
                run = self._timed(
                    "running torch",
                    lambda adjoint=adjoint: run_in_torch(
                        source, traced, dtype, device, settings.beta, settings.num_steps, cotangents, adjoint
                    ),
                )
            except TorchRunError as error:
                self._not_run.append({"what": f"{name} {adjoint} on {device}", "why": str(error)})
                continue
            leaves = all_bits_right(run.gradient, truth)
            worst = worst_of(leaves)
            for leaf in (*_states_right(traced, run.z, state), *leaves):
                self._rows.append(
                    LeafBits(
                        dtype=name,
                        device=device,
                        adjoint=adjoint,
                        target=target,
                        leaf=leaf.leaf,
                        bits=leaf.bits,
                        stored=STORED_BITS.get(dtype, 0),
                        index=leaf.index,
                        got=leaf.got,
                        expected=leaf.expected,
                        worst=leaf is worst,
                    )
                )

    def _proofs(
        self,
        traced: Traced,
        fixed: FixedPointStage,
        steps: StepsStage,
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> list[dict[str, Any]]:
        settings = self._settings
        proofs: list[dict[str, Any]] = []
        if fixed.enclosure is not None and fixed.contraction is not None:
            total = flat[0] + flat[1]
            proofs.append(
                fixed_point_proof(traced, fixed.enclosure, fixed.contraction, total, fixed.gradient, settings.digits)
            )
        if steps.steps is not None:
            start = steps.function.start
            bits = steps.function.ops.bits
            proofs.append(n_step_proof(traced, bits, settings.beta, start, flat, steps.steps, settings.digits))
        return proofs

    def _direction_only(
        self,
        source: Source,
        traced: Traced,
        cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
        flat: tuple[NDArray[np.float64], NDArray[np.float64]],
        size: int,
    ) -> Certificate:
        """The state is too large for enclosures: one directional derivative of the N-step map, by differences."""
        settings = self._settings
        found = self._timed(
            "differencing along one direction",
            lambda: certify_direction(source, traced, settings, cotangents, flat),
        )
        self._findings.append(found.finding)
        self._confirmations.append(found.row)
        self._not_run += found.not_run
        return Certificate(
            scope=f"one direction: the state has {size} components, above max_components = {settings.max_components}",
            bits=0,
            ties=0,
            contraction=None,
            values={},
            advice=(),
            proofs=(),
            **self._common(source, traced),
        )


def _states_right(traced: Traced, got: NDArray[np.float64], truth: Array) -> list[BitsRight]:
    rows: list[BitsRight] = []
    first = 0
    for name in traced.state:
        shape = tuple(traced.values[name].shape)
        part = slice(first, first + int(np.prod(shape)))
        rows.append(bits_right(name.replace("z0", "z1", 1), got[part].reshape(shape), truth[part].reshape(shape)))
        first = part.stop
    return rows


def _looser(settings: Settings) -> Settings:
    # The truth for a narrower dtype's own problem needs no more digits than float64 shows, with 2^-10 to spare.
    return replace(settings, digits=min(settings.digits, 20))


def cotangents_of(
    traced: Traced, settings: Settings
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """dL/dz_N and dL/dy_N by state leaf: those of the settings, else seeded multiples of 1/8, and zero.

    Raises:
        ValueError: the settings' do not look like z0.
    """
    generator = np.random.default_rng(20260119)
    shapes = {name: tuple(traced.values[name].shape) for name in traced.state}
    drawn = {name: generator.integers(1, 9, shape) / 8.0 for name, shape in shapes.items()}
    signs = {name: generator.integers(0, 2, shape) * 2.0 - 1.0 for name, shape in shapes.items()}
    of_z = {name: drawn[name] * signs[name] for name in shapes}
    of_y = {name: np.zeros(shape) for name, shape in shapes.items()}
    for given, into, what in ((settings.cotangent_z, of_z, "cotangent_z"), (settings.cotangent_y, of_y, "cotangent_y")):
        if given is None:
            continue
        leaves = tree_flatten(given)[0]
        if len(leaves) != len(shapes) or any(
            tuple(leaf.shape) != shape for leaf, shape in zip(leaves, shapes.values(), strict=False)
        ):
            raise ValueError(f"{what} does not look like z0; give a tensor or pytree of the same shapes")
        into.update({name: exact_values(leaf) for name, leaf in zip(shapes, leaves, strict=True)})
    return of_z, of_y


def joined(traced: Traced, leaves: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Leaves of the state as one flat vector."""
    return np.concatenate([leaves[name].ravel() for name in traced.state])


def _check_independent(whole: Source, part: Source, samples: int) -> None:
    with torch.no_grad():
        expected = whole.function(whole.z0, whole.args)[:samples].double()
        try:
            got = part.function(part.z0, part.args).double()
        except Exception as error:
            raise SourceError(
                f"the function does not run on the first samples alone ({type(error).__name__}: {error}); give a "
                "smaller batch yourself"
            ) from error
    # Only the order of sums may differ between the two, which costs less than half of the dtype's bits.
    allowed = torch.finfo(part.z0.dtype).eps ** 0.5 * max(1.0, float(expected.abs().max()))
    if got.shape != expected.shape or not float((got - expected).abs().max()) <= allowed:
        raise SourceError(
            "the first samples alone give another f than inside the whole batch, so a sub-batch is another "
            "problem; give "
            "a smaller batch yourself"
        )


def _is_there(device: str) -> bool:
    kind = device.partition(":")[0]
    return kind == "cuda" and torch.cuda.is_available()


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
