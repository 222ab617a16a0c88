"""Pytrees of tensors: the states and the arguments that users hand in, as flat lists of leaves and back."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch.utils import _pytree


Tree: TypeAlias = Any
"""A tensor, or any nesting of tuples, lists and dicts of tensors and other objects."""

Leaves: TypeAlias = tuple[torch.Tensor, ...]
"""The tensors of a tree, in the order in which `flatten` finds them."""

Structure: TypeAlias = _pytree.TreeSpec


# A state is nearly always one tensor: then none of the machinery for trees is needed, at every evaluation.
_ONE_LEAF: Structure = _pytree.tree_flatten(torch.empty(0))[1]


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """Return the leaves of `tree`, tensors or not, and the structure that puts them back."""
    return ([tree], _ONE_LEAF) if isinstance(tree, torch.Tensor) else _pytree.tree_flatten(tree)


def unflatten(leaves: Sequence[Any], structure: Structure) -> Tree:
    """Return the tree of the given structure with the given leaves."""
    return leaves[0] if structure is _ONE_LEAF else _pytree.tree_unflatten(list(leaves), structure)


def leaf_names(tree: Tree, root: str) -> list[str]:
    """Return a readable name for each leaf of `tree`, such as `args['weight']`, in the order of `flatten`."""
    pairs, _ = _pytree.tree_flatten_with_path(tree)
    return [root + _pytree.keystr(path) for path, _ in pairs]
