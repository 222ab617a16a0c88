"""The one residual, `||f(z) - z||` per sample, and the one rule by which a solve stops."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from revdeq._tree import Leaves


def sample_shape(leaves: Leaves) -> tuple[int, ...]:
    """Return `(B,)` where dimension 0 of every leaf counts B samples, and `()` where the state is one sample.

    Dimension 0 counts samples when every leaf has at least two dimensions and all agree in the first. A vector is one
    sample: give a batch of scalars the shape (B, 1).
    """
    sizes = {leaf.shape[0] if leaf.ndim >= 2 else -1 for leaf in leaves}
    if len(sizes) == 1 and -1 not in sizes:
        return (sizes.pop(),)
    return ()


def sample_norm(leaves: Leaves) -> torch.Tensor:
    """Return the 2-norm of the state per sample, shape `sample_shape(leaves)`, in float64 where the device has it.

    Args:
        leaves: tensors of one state.
    """
    shape, wide = sample_shape(leaves), _wide(leaves)
    largest = torch.stack([sample_largest(leaf, shape).to(wide) for leaf in leaves]).amax(dim=0)
    # Squares of very small or large numbers would leave the range; a zero or non-finite norm needs no scale.
    scale = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
    flat = [_flat(leaf, shape).to(wide) / scale.unsqueeze(-1) for leaf in leaves]
    norms = [torch.linalg.vector_norm(leaf, dim=-1) for leaf in flat]
    return scale * (norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0))


def leaf_norms(leaves: Leaves) -> list[torch.Tensor]:
    """Return the 2-norm of each leaf, 0-d tensors, in float64 where the device has it."""
    wide = _wide(leaves)
    return [torch.linalg.vector_norm(leaf, dtype=wide) for leaf in leaves]


def joint_norm(leaves: Leaves) -> torch.Tensor:
    """Return the 2-norm of all leaves together, a 0-d tensor, in float64 where the device has it."""
    return torch.linalg.vector_norm(torch.stack(leaf_norms(leaves)))


def _wide(leaves: Leaves) -> torch.dtype:
    return torch.float32 if leaves[0].device.type == "mps" else torch.float64


def _flat(leaf: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return leaf.reshape(*shape, -1) if leaf.numel() else leaf.new_zeros(*shape, 1)


def sample_largest(leaf: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the largest magnitude per sample, NaN where a component is NaN, in the dtype of the leaf.

    Args:
        leaf: one leaf of a state.
        shape: `sample_shape` of the state; () for the largest of all.
    """
    # Not vector_norm with ord=inf, which took ten times as long on a CPU.
    return _flat(leaf, shape).abs().amax(dim=-1)


def sample_finite(leaves: Leaves, dtypes: Sequence[torch.dtype]) -> torch.Tensor:
    """Return whether every component is finite, per sample: a bool tensor of shape `sample_shape(leaves)`.

    Args:
        leaves: tensors of one or more states.
        dtypes: for each leaf the dtype in which it has to be finite.
    """
    shape = sample_shape(leaves)
    largest = [sample_largest(leaf, shape).to(dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    flags = [torch.isfinite(x) for x in largest]
    return flags[0] if len(flags) == 1 else torch.stack(flags).all(dim=0)


def residual_norm(function_of_z: Leaves, z: Leaves) -> torch.Tensor:
    """Return `||f(z) - z||` in the 2-norm per sample.

    Args:
        function_of_z: the leaves of f(z).
        z: the leaves of z as f received it, in the same dtypes.
    """
    return sample_norm(tuple(fz - x for fz, x in zip(function_of_z, z, strict=True)))


def per_sample(flag: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Return the per-sample tensor `flag` with trailing dimensions added, so that it broadcasts against `leaf`."""
    return flag.reshape(flag.shape + (1,) * (leaf.ndim - flag.ndim))


def masked(active: torch.Tensor | None, leaves: Leaves) -> Leaves:
    """Return the leaves with exact zeros, not products with zero, for the samples that are not active.

    Args:
        active: bool tensor, one entry a sample, or 0-d; None where all are.
        leaves: tensors with the samples in dimension 0.
    """
    if active is None:
        return leaves
    return tuple(torch.where(per_sample(active, leaf), leaf, torch.zeros_like(leaf)) for leaf in leaves)


def _whole(name: str, value: object, allowed: str) -> int:
    """Return an integer of whatever kind as an int.

    Raises:
        TypeError: it is none.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; it must be {allowed}.")


@dataclass(frozen=True)
class Stopping:
    """When to stop: after `max_steps` steps, or earlier where `||f(z) - z|| <= atol + rtol ||f(z)||`.

    Args:
        max_steps: number of steps, an int >= 0.
        rtol: relative tolerance, dimensionless; None together with `atol` for a fixed number of steps.
        atol: absolute tolerance in the unit of z.
        save_at: numbers of steps after which the state is returned too, each from 0 to max_steps, without tolerances.

    Raises:
        TypeError: max_steps or an entry of save_at is not an int, or a tolerance is not a number.
        ValueError: max_steps < 0; one tolerance without the other; a tolerance that is negative or not finite; save_at
            with tolerances, or outside its range.
    """

    max_steps: int
    rtol: float | None = None
    atol: float | None = None
    save_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_steps", _whole("max_steps", self.max_steps, "an int >= 0, such as 8"))
        if self.max_steps < 0:
            raise ValueError(f"max_steps is {self.max_steps}; it must be an int >= 0, such as 8.")
        # One tolerance without the other would silently mean zero for the missing one.
        if (self.rtol is None) != (self.atol is None):
            raise ValueError(
                f"rtol is {self.rtol} and atol is {self.atol}; give both to stop by tolerance, "
                "or neither to take exactly max_steps steps."
            )
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} is {value!r}; it must be a finite number >= 0.")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be a finite number >= 0.")

        saved = tuple(_whole("an entry of save_at", n, "a number of steps, an int") for n in self.save_at)
        object.__setattr__(self, "save_at", saved)
        if len(set(saved)) < len(saved):
            raise ValueError(f"save_at is {saved}; name each number of steps once.")
        if saved and self.by_tolerance:
            raise ValueError(
                "save_at is given with rtol and atol, with which samples take different numbers of steps; leave the "
                "tolerances out."
            )
        for n in saved:
            if not 0 <= n <= self.max_steps:
                raise ValueError(f"save_at holds {n}; its entries must be from 0 to max_steps = {self.max_steps}.")

    @property
    def by_tolerance(self) -> bool:
        """Whether tolerances were given."""
        return self.rtol is not None

    def converged(self, function_of_z: Leaves, residual: torch.Tensor) -> torch.Tensor:
        """Return per sample whether `residual <= atol + rtol ||f(z)||`; False where either side is NaN."""
        assert self.rtol is not None
        assert self.atol is not None
        return residual <= self.atol + self.rtol * sample_norm(function_of_z)
