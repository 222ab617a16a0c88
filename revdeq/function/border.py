"""The border between a user's function of trees and a solver's flat leaves, checked in both directions.

NOTE [Samples]
Inside, dimension 0 of every leaf counts samples where `revdeq._residual.sample_shape` says so. That is right for most
states, and `batch_dims` says what is right for the others: with 0 the whole state is one sample (the nodes of a graph,
a matrix equation, a sequence whose first dimension is time), which the solver then holds with a dimension of size 1 in
front; with 1 the first dimension counts samples, also where a leaf has no other.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch

from revdeq._narrowing import narrow
from revdeq._tree import Leaves, Tree, flatten, leaf_names, unflatten


BatchDims = Literal[0, 1]


class Border:
    """Takes leaves of states to the trees that the function knows, and its values back.

    Args:
        z0: start state, a tensor or a pytree of floating-point tensors on one device.
        batch_dims: see NOTE [Samples]; None to go by the shapes.

    Attributes:
        start: leaves of z0 as the solver holds them.
        structure: structure of z0.
        shapes: shapes of its leaves, as the user gave them.
        one_sample: whether the whole state is one sample, held with a dimension of size 1 in front.

    Raises:
        TypeError: a leaf is not a tensor, or not of a real floating dtype; batch_dims is neither None nor 0 nor 1.
        ValueError: there is no leaf, leaves lie on several devices, or batch_dims is 1 and they do not agree in
            dimension 0.
    """

    def __init__(self, z0: Tree, batch_dims: BatchDims | None = None) -> None:
        leaves, self.structure = flatten(z0)
        _check_start(leaves, z0)
        leaves = [savable(leaf) for leaf in leaves]
        _check_batch_dims(batch_dims, leaves, z0)
        self.shapes = tuple(leaf.shape for leaf in leaves)
        self.one_sample = batch_dims == 0
        self._laid_out = tuple(_inside(leaf.shape, batch_dims) for leaf in leaves)
        self._as_is = self._laid_out == self.shapes
        self.start: Leaves = self.inward(leaves)

    def without_graph(self) -> "Border":
        """Return this border with a start that holds on to no graph."""
        free = copy.copy(self)
        free.start = tuple(leaf.detach() for leaf in self.start)
        return free

    def inward(self, leaves: Sequence[torch.Tensor]) -> Leaves:
        """Return leaves of the user's shapes as the solver holds them."""
        if self._as_is:
            return tuple(leaves)
        return tuple(leaf.reshape(shape) for leaf, shape in zip(leaves, self._laid_out, strict=True))

    def tree(self, leaves: Leaves) -> Tree:
        """Return the tree of the user's shapes that the leaves stand for."""
        if self._as_is:
            return unflatten(leaves, self.structure)
        shaped = [leaf.reshape(shape) for leaf, shape in zip(leaves, self.shapes, strict=True)]
        return unflatten(shaped, self.structure)

    def of_samples(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return a tensor with one entry a sample as the user sees it: without that dimension where there is one."""
        return numbers.reshape(numbers.shape[1:]) if self.one_sample and numbers.ndim else numbers

    def narrow(self, z: Leaves) -> Leaves:
        """Return the leaves of a state in the dtypes of z0; see NOTE [Ties] in `revdeq._narrowing`."""
        return tuple(narrow(x, start.dtype) for x, start in zip(z, self.start, strict=True))

    def name(self, index: int) -> str:
        """Return the name of a leaf for messages, such as z0['hidden']."""
        return leaf_names(self.tree(self.start), "z0")[index]

    def second(self, y0: Tree) -> Leaves:
        """Return the leaves of a second state as the solver holds them.

        Args:
            y0: of the structure, shapes, dtypes and device of z0.

        Raises:
            ValueError: it is not.
        """
        leaves, structure = flatten(y0)
        pairs = zip(leaves, self.start, self.shapes, strict=False)
        if structure != self.structure or not all(
            isinstance(leaf, torch.Tensor)
            and (leaf.shape, leaf.dtype, leaf.device) == (shape, start.dtype, start.device)
            for leaf, start, shape in pairs
        ):
            raise ValueError(
                f"y0 is {described(y0)}; it must have the structure, shapes, dtypes and device of z0, "
                f"{described(self.tree(self.start))}, as Solution.y1 has."
            )
        return self.inward([savable(leaf) for leaf in leaves])

    def checked(self, value: Tree, *, any_float: bool) -> Leaves:
        """Return the leaves of what the function returned as the solver holds them.

        Args:
            value: what it returned.
            any_float: whether another floating dtype than that of z0 will do, as under autocast.

        Raises:
            TypeError, ValueError: it does not fit z0; the sentence says how.
        """
        leaves, structure = flatten(value)
        if structure is not self.structure and structure != self.structure:
            raise TypeError(
                f"function returned {described(value)}; it must return the structure of z0, "
                f"{described(self.tree(self.start))}."
            )
        for i, (leaf, start, shape) in enumerate(zip(leaves, self.start, self.shapes, strict=True)):
            if not isinstance(leaf, torch.Tensor):
                raise TypeError(
                    f"function returned a {type(leaf).__name__} for leaf {self.name(i)}; it must return a tensor."
                )
            if leaf.shape != shape:
                raise ValueError(
                    f"function returned shape {tuple(leaf.shape)} for leaf {self.name(i)}; it must return the shape "
                    f"of z0, {tuple(shape)}."
                )
            if leaf.device != start.device:
                raise ValueError(
                    f"function returned a tensor on {leaf.device} for leaf {self.name(i)}; it must stay on the device "
                    f"of z0, {start.device}."
                )
            if leaf.dtype != start.dtype and not (any_float and leaf.dtype.is_floating_point):
                raise TypeError(
                    f"function returned dtype {leaf.dtype} for leaf {self.name(i)}; it must return the dtype of z0, "
                    f"{start.dtype}: cast z0 or the parameters, and let state_dtype widen the states."
                )
        return self.inward(leaves)


def savable(item: Any) -> Any:
    """Return a copy of a tensor made in inference mode, which autograd cannot save, where a graph may be recorded."""
    inference = isinstance(item, torch.Tensor) and item.is_inference()
    return item.clone() if inference and torch.is_grad_enabled() else item


def _inside(shape: torch.Size, batch_dims: BatchDims | None) -> torch.Size:
    if batch_dims == 0:
        return torch.Size((1, *shape)) if len(shape) else torch.Size((1, 1))
    return torch.Size((*shape, 1)) if batch_dims == 1 and len(shape) == 1 else shape


def validated_batch_dims(batch_dims: object) -> BatchDims | None:
    """Return `batch_dims` if it is one of those of NOTE [Samples].

    Raises:
        TypeError: it is not.
    """
    for allowed in (None, 0, 1):
        if batch_dims is allowed:
            return allowed
    raise TypeError(
        f"batch_dims is {batch_dims!r}; it must be 0 where the state is one sample, 1 where dimension 0 counts "
        "samples, or None to go by the shapes."
    )


def _check_batch_dims(batch_dims: object, leaves: Sequence[torch.Tensor], z0: Tree) -> None:
    if validated_batch_dims(batch_dims) == 1 and (
        any(leaf.shape[:1] != leaves[0].shape[:1] for leaf in leaves) or not leaves[0].ndim
    ):
        shapes = ", ".join(f"{n} {tuple(x.shape)}" for n, x in zip(leaf_names(z0, "z0"), leaves, strict=True))
        raise ValueError(f"batch_dims is 1 but the leaves of z0 do not agree in dimension 0: {shapes}.")


def _check_start(leaves: Sequence[Any], z0: Tree) -> None:
    if not leaves:
        raise ValueError("z0 has no tensor in it; it must be a tensor or a pytree with at least one tensor.")
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(
                f"{leaf_names(z0, 'z0')[i]} is a {type(leaf).__name__}; every leaf of z0 must be a tensor of a real "
                "floating dtype."
            )
        if not leaf.dtype.is_floating_point:
            raise TypeError(
                f"{leaf_names(z0, 'z0')[i]} has dtype {leaf.dtype}; a state must have a real floating dtype, so "
                "convert it, for example with .float()."
            )
        if leaf.layout != torch.strided:
            raise TypeError(
                f"{leaf_names(z0, 'z0')[i]} has layout {leaf.layout}; a state must be dense, so convert it with "
                ".to_dense() or pad it."
            )
    devices = {leaf.device for leaf in leaves}
    if len(devices) > 1:
        raise ValueError(f"z0 has leaves on {', '.join(sorted(map(str, devices)))}; move them to one device.")


def described(tree: Tree) -> str:
    """Return a short description of a tree for an error message: the types, and the shapes of tensors."""
    if isinstance(tree, torch.Tensor):
        return f"a tensor of shape {tuple(tree.shape)}"
    if isinstance(tree, tuple | list):
        return f"a {type(tree).__name__} of ({', '.join(described(item) for item in tree)})"
    if isinstance(tree, dict):
        return "a dict of {" + ", ".join(f"{key!r}: {described(item)}" for key, item in tree.items()) + "}"
    return f"a {type(tree).__name__}" if tree is not None else "None"
