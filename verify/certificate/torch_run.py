"""The subject under the certificate: what torch returns for the same problem, in a dtype and on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_flatten, tree_unflatten

import revdeq
from verify.certificate.source import Source
from verify.certificate.stored import cast, held
from verify.reference.graph import Traced
from verify.reference.graph.capture import captured_tensors
from verify.reference.graph.conversion import exact_values
from verify.reference.graph.graph import references
from verify.reference.graph.tracing import leaf_names


AdjointName = Literal["reversible", "implicit"]


class TorchRunError(RuntimeError):
    """torch could not run the problem in that dtype or on that device; the message says why."""


@dataclass(frozen=True)
class TorchRun:
    """What torch returned.

    Attributes:
        dtype: of z0, args and everything captured, by name.
        device: device type.
        adjoint: "reversible" or "implicit".
        z: z_N, flat, exactly as float64.
        gradient: by leaf name, exactly as float64.
    """

    dtype: str
    device: str
    adjoint: AdjointName
    z: NDArray[np.float64]
    gradient: dict[str, NDArray[np.float64]]


AS_GIVEN = "as given"
"""The name of the run in which every tensor keeps its own dtype."""


def dtype_name(dtype: torch.dtype | None) -> str:
    """The name of a dtype, "float32", or of the run that casts nothing."""
    return AS_GIVEN if dtype is None else str(dtype).removeprefix("torch.")


def run_in_torch(
    source: Source,
    traced: Traced,
    dtype: torch.dtype | None,
    device: str,
    beta: float,
    num_steps: int,
    cotangents: tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.float64]]],
    adjoint: AdjointName,
) -> TorchRun:
    """Solve and differentiate with `revdeq`, everything floating cast to the dtype.

    Args:
        source: function, start and args as the user has them; they are not changed.
        traced: the recorded function, for the names of leaves.
        dtype: of z0, args and captured tensors; None leaves each in its own.
        device: "cpu", "cuda", ...
        beta: relaxation parameter.
        num_steps: N.
        cotangents: dL/dz_N and dL/dy_N by state leaf.
        adjoint: which gradient.

    Raises:
        TorchRunError: the solver or the function raised, or a gradient is missing.
    """
    state_names, state, z_spec = leaf_names("z0", source.z0)
    started = [cast(leaf, dtype, device).clone().requires_grad_() for leaf in state]
    own = own_tensors(source)
    leaves = dict(zip(state_names, started, strict=True)) | own

    rule = revdeq.ReversibleAdjoint() if adjoint == "reversible" else revdeq.ImplicitAdjoint()
    try:
        with held(own, dtype, device, traced.leaves):
            z0 = tree_unflatten(started, z_spec)
            solution = revdeq.solve(
                source.function, z0, source.args, solver=revdeq.Reversible(beta), adjoint=rule, max_steps=num_steps
            )
            outputs = tree_flatten(solution.z1)[0]
            weights = [cotangents[0][name] for name in state_names]
            if any(np.any(values) for values in cotangents[1].values()):
                outputs += tree_flatten(solution.y1)[0]
                weights += [cotangents[1][name] for name in state_names]
            given = [
                torch.tensor(weight.tolist(), dtype=output.dtype, device=output.device).reshape(output.shape)
                for output, weight in zip(outputs, weights, strict=True)
            ]
            wanted = [name for name in traced.leaves if adjoint == "reversible" or name not in traced.state]
            gradients: Any = torch.autograd.grad(outputs, [leaves[name] for name in wanted], given, allow_unused=True)
    except Exception as error:
        raise TorchRunError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    missing = [name for name, value in zip(wanted, gradients, strict=True) if value is None and _is_used(traced, name)]
    if missing:
        raise TorchRunError(f"no gradient reaches {missing[0]}")
    found = {
        name: exact_values(leaves[name] * 0 if value is None else value)
        for name, value in zip(wanted, gradients, strict=True)
    }
    z1 = np.concatenate([exact_values(leaf).ravel() for leaf in tree_flatten(solution.z1)[0]])
    return TorchRun(dtype_name(dtype), device, adjoint, z1, found)


def own_tensors(source: Source) -> dict[str, torch.Tensor]:
    """The tensors that a function reads besides its state, by name."""
    names, leaves, _ = leaf_names("args", source.args)
    given = {name: leaf for name, leaf in zip(names, leaves, strict=True) if isinstance(leaf, torch.Tensor)}
    return given | captured_tensors(source.function, z0_copy(source.z0), source.args)


def z0_copy(z0: Any) -> Any:
    """A copy of the start, so that a function that captured it is seen to."""
    leaves, spec = tree_flatten(z0)
    return tree_unflatten([leaf.clone() for leaf in leaves], spec)


def _is_used(traced: Traced, name: str) -> bool:
    number = [entry.name for entry in traced.forward.inputs].index(name)
    return any(ref.value == number for node in traced.forward.nodes for ref in references(node))
