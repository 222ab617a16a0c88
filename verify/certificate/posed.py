"""The problem that a certificate is of: which samples, and which loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_flatten

from verify.certificate.kernel.numbers import packed
from verify.certificate.settings import Settings
from verify.certificate.source import Source, SourceError, first_samples
from verify.reference.graph import Traced
from verify.reference.graph.conversion import exact_values


def scope_of(source: Source, settings: Settings) -> tuple[Source, str]:
    """All samples, those that were asked for, or as many as max_components allows, at least one."""
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


def _check_independent(whole: Source, part: Source, samples: int) -> None:
    with torch.no_grad():
        try:
            expected = whole.function(whole.z0, whole.args)[:samples].double()
            got = part.function(part.z0, part.args).double()
        except Exception as error:
            raise SourceError(
                "the function does not run on the whole batch and on its first samples alone "
                f"({type(error).__name__}: {error}); give a smaller batch yourself"
            ) from error
    # Only the order of sums may differ between the two, which costs less than half of the dtype's bits.
    allowed = torch.finfo(part.z0.dtype).eps ** 0.5 * max(1.0, float(expected.abs().max()))
    if got.shape != expected.shape or not float((got - expected).abs().max()) <= allowed:
        raise SourceError(
            "the first samples alone give another f than inside the whole batch, so a sub-batch is another "
            "problem; give a smaller batch yourself"
        )


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


def check_finite(traced: Traced) -> None:
    """See that no number that f reads is a NaN, and that the start is finite; a mask may hold infinities.

    Raises:
        SourceError: one is; its name and its first place are given.
    """
    for name, tensor in traced.values.items():
        values = exact_values(tensor)
        broken = ~np.isfinite(values) if name in traced.state else np.isnan(values)
        if broken.any():
            place = [int(part[0]) for part in np.nonzero(broken)]
            raise SourceError(f"{name}{place} is {values[tuple(place)]}; give finite numbers")


def head_json(
    traced: Traced,
    settings: Settings,
    cotangents: tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.float64]]],
) -> dict[str, Any]:
    """What every proof of a certificate reads besides its own numbers: settings, shapes, the loss."""
    return {
        "beta": settings.beta,
        "num_steps": settings.num_steps,
        "digits": settings.digits,
        "state": {name: list(traced.values[name].shape) for name in traced.state},
        "leaves": {name: list(traced.values[name].shape) for name in traced.leaves},
        "cotangent_z": packed(joined(traced, cotangents[0]).tolist()),
        "cotangent_y": packed(joined(traced, cotangents[1]).tolist()),
    }


def joined(traced: Traced, leaves: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Leaves of the state as one flat vector."""
    return np.concatenate([leaves[name].ravel() for name in traced.state])
