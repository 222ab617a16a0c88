"""The derivative of f at one state, as products with cotangents."""

from collections.abc import Sequence
from typing import TypeAlias

import torch

from revdeq._tree import Leaves


PartialLeaves: TypeAlias = tuple[torch.Tensor | None, ...]
"""Leaves of a cotangent or gradient, in which None stands for an exact zero."""


def vjp(
    values: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor | None], sources: Leaves, keep: bool = False
) -> PartialLeaves:
    """Return the products of `cotangents` with the derivative of `values` in `sources`.

    Args:
        values: tensors computed from `sources` with a graph; those without one have an exact zero as derivative.
        cotangents: one for each of `values`, in its dtype; None for zero.
        sources: tensors that require grad.
        keep: whether to keep the graph for another call.
    """
    pairs = [(v, c) for v, c in zip(values, cotangents, strict=True) if c is not None and v.requires_grad]
    if not pairs:
        return (None,) * len(sources)
    # allow_unused: a source that no value depends on has an exact zero as its gradient, given as None.
    found = torch.autograd.grad(
        [v for v, _ in pairs], sources, [c for _, c in pairs], retain_graph=keep, allow_unused=True
    )
    return tuple(found)


def difference(values: Leaves, others: Leaves) -> float:
    """Return the norm of the difference over that of `others`, where NaN equals NaN and infinity infinity."""
    if all(torch.equal(a, b) for a, b in zip(values, others, strict=True)):
        return 0.0
    wide = [(a.detach().double(), b.detach().double()) for a, b in zip(values, others, strict=True)]
    apart = [torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b).norm() for a, b in wide]
    size = torch.stack([torch.where(b.isfinite(), b, 0.0).norm() for _, b in wide]).norm()
    return float(torch.stack(apart).norm() / torch.where(size > 0, size, 1.0))


def repeatability(roundoff: float) -> float:
    """Return the relative difference within which two evaluations of one map at one point agree.

    Three quarters of the digits do, in whatever order a device sums; a map that is another one differs by more.

    Args:
        roundoff: relative spacing of the dtype that f computes in.
    """
    return roundoff**0.75


class Linearisation:
    """f at one state, with the graph of this one evaluation, through which cotangents are pulled back.

    Args:
        z: leaves of the state.
        values: leaves of f(z), then those of its auxiliary output.
        inputs: `Replay.inputs`.
        count: number of leaves of f(z).

    Attributes:
        value: leaves of f(z), detached.
    """

    def __init__(self, z: Leaves, values: Leaves, inputs: Leaves, count: int) -> None:
        self._z, self._inputs = z, inputs
        self._value, self._aux = values[:count], values[count:]
        self.value: Leaves = tuple(v.detach() for v in self._value)

    def pull_back(self, cotangent: Leaves, to_aux: PartialLeaves = ()) -> tuple[PartialLeaves, PartialLeaves]:
        """Return the products of `cotangent` with df/dz and with the derivative in the inputs, and free the graph.

        Args:
            cotangent: leaves shaped like f(z), in any floating dtype; rounded to the dtype of f(z).
            to_aux: cotangents of the auxiliary output; empty for zero.

        Returns:
            The cotangent of z in the dtypes of f, and the gradients of `Replay.inputs`; None stands for an exact zero.
        """
        values, cotangents = (
            (*self._value, *self._aux),
            (*self._rounded(cotangent), *(to_aux or (None,) * len(self._aux))),
        )
        grads = vjp(values, cotangents, (*self._z, *self._inputs))
        return grads[: len(self._z)], grads[len(self._z) :]

    def pull_back_aux(self, to_aux: PartialLeaves) -> tuple[PartialLeaves, PartialLeaves]:
        """Return the products of cotangents of the auxiliary output, as `pull_back` does, and free the graph."""
        found = vjp(self._aux, to_aux, (*self._z, *self._inputs))
        return found[: len(self._z)], found[len(self._z) :]

    def pull_back_state(self, cotangent: Leaves) -> PartialLeaves:
        """Return the product of `cotangent` with df/dz alone, and keep the graph for more."""
        return vjp(self._value, self._rounded(cotangent), self._z, keep=True)

    def _rounded(self, cotangent: Leaves) -> Leaves:
        return tuple(c.to(v.dtype) for v, c in zip(self._value, cotangent, strict=True))
