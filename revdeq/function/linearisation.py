"""The derivative of f at one state, as products with cotangents."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch

from revdeq._tree import Leaves


PartialLeaves: TypeAlias = tuple[torch.Tensor | None, ...]
"""Leaves of a cotangent or gradient, in which None stands for an exact zero."""


def vjp(
    values: Sequence[torch.Tensor | None],
    cotangents: Sequence[torch.Tensor | None],
    sources: Leaves,
    keep: bool = False,
    *,
    graph: bool = False,
) -> PartialLeaves:
    """Return the products of `cotangents` with the derivative of `values` in `sources`.

    Args:
        values: tensors computed from `sources` with a graph; those without one have an exact zero as derivative, None
            is zero itself.
        cotangents: one for each of `values`, in its dtype; None for zero.
        sources: tensors that require grad.
        keep: whether to keep the graph for another call.
        graph: whether the products are to have a graph, which keeps this one.
    """
    given = zip(values, cotangents, strict=True)
    pairs = [(v, c) for v, c in given if v is not None and c is not None and v.requires_grad]
    if not pairs:
        return (None,) * len(sources)
    # allow_unused: a source that no value depends on has an exact zero as its gradient, given as None.
    found = torch.autograd.grad(
        [v for v, _ in pairs],
        sources,
        [c for _, c in pairs],
        retain_graph=keep or graph,
        create_graph=graph,
        allow_unused=True,
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


class PulledTwice(NamedTuple):
    """What `Linearisation.pull_back_twice` returns; None stands for an exact zero.

    Attributes:
        to_z: the product of the cotangent with df/dz.
        to_inputs: that with the derivative in the inputs.
        second_to_z: the second part for z.
        second_to_inputs: that for the inputs.
        tangent: that for the cotangent: the derivative of f in the direction (tangent, directions).
    """

    to_z: PartialLeaves
    to_inputs: PartialLeaves
    second_to_z: PartialLeaves
    second_to_inputs: PartialLeaves
    tangent: PartialLeaves


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

    def push_forward(self, tangent: Leaves, directions: PartialLeaves) -> tuple[PartialLeaves, PartialLeaves]:
        """Return the derivative in a direction, and free the graph.

        It is the transpose of the VJP, so that it asks no more of f than a VJP that can be differentiated.

        Args:
            tangent: the direction of z, leaves in any floating dtype; rounded to that of z.
            directions: those of `Replay.inputs`; None for zero.

        Returns:
            The tangents of f(z), and of its auxiliary output; None stands for an exact zero.
        """
        values = (*self._value, *self._aux)
        probes = tuple(torch.zeros_like(v).requires_grad_(v.requires_grad) for v in values)
        sources = (*self._z, *self._inputs)
        with torch.enable_grad():
            pulled = vjp(values, probes, sources, graph=True)
        asked = [i for i, probe in enumerate(probes) if probe.requires_grad]
        found = vjp(pulled, (*self._like_z(tangent), *directions), tuple(probes[i] for i in asked)) if asked else ()
        tangents = dict(zip(asked, found, strict=True))
        whole = tuple(tangents.get(i) for i in range(len(values)))
        return whole[: len(self._value)], whole[len(self._value) :]

    def pull_back_twice(
        self,
        cotangent: Leaves,
        to_aux: PartialLeaves,
        second: Leaves,
        tangent: Leaves,
        directions: PartialLeaves,
    ) -> PulledTwice:
        """Return what `pull_back` does, and pull its derivative back in turn; the graph is freed.

        With g(z, inputs, w) the products that `pull_back` returns for w = cotangent, the second parts are the gradients
        of <g, (tangent, directions)> + <f, second>.

        Args:
            cotangent: of f(z), as for `pull_back`.
            to_aux: of the auxiliary output, likewise.
            second: the other cotangent of f(z).
            tangent: what the first cotangent of z is multiplied with.
            directions: what those of `Replay.inputs` are multiplied with; None for zero.
        """
        sources, first = (*self._z, *self._inputs), len(self._z)
        # Fresh tensors, so that nothing else hangs on these leaves.
        weights = tuple(c.clone().requires_grad_() for c in self._rounded(cotangent))
        with torch.enable_grad():
            pulled = vjp(
                (*self._value, *self._aux), (*weights, *(to_aux or (None,) * len(self._aux))), sources, graph=True
            )
        again = vjp(
            (*pulled, *self._value),
            (*self._like_z(tangent), *directions, *self._rounded(second)),
            (*sources, *weights),
        )
        products = tuple(None if g is None else g.detach() for g in pulled)
        return PulledTwice(
            products[:first], products[first:], again[:first], again[first : len(sources)], again[len(sources) :]
        )

    def _like_z(self, tangent: Leaves) -> Leaves:
        return tuple(t.to(z.dtype) for t, z in zip(tangent, self._z, strict=True))

    def _rounded(self, cotangent: Leaves) -> Leaves:
        return tuple(c.to(v.dtype) for v, c in zip(self._value, cotangent, strict=True))
