"""Bytes that a solve and its backward pass keep, counted from one evaluation of f."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq.tree import Tree, flatten, unflatten


@dataclass(frozen=True)
class Memory:
    """Bytes of one solve and its backward pass.

    Attributes:
        states: the two coupled states and their two cotangents.
        graph: what autograd keeps of one evaluation of f.
        unrolled: the same solve differentiated by plain autograd, which keeps every evaluation.
    """

    states: int
    graph: int
    unrolled: int

    @property
    def reversible(self) -> int:
        """States and one graph, whatever the number of steps."""
        return self.states + self.graph


def memory_of(
    function: Callable[[Tree, Tree], Tree], z: Tree, args: Tree, state_dtype: torch.dtype, num_steps: int
) -> Memory:
    """Count the bytes of a solve with `num_steps` reversible steps from z.

    Args:
        function: callable of (z, args) that returns the structure of z; evaluated once.
        z: a state, a tensor or pytree of tensors.
        args: any pytree.
        state_dtype: dtype of the coupled states.
        num_steps: steps, each two evaluations of f.
    """
    leaves, _ = flatten(z)
    components = sum(leaf.numel() for leaf in leaves)
    graph = _saved_bytes(function, z, args)
    width = torch.finfo(state_dtype).bits // 8
    return Memory(states=4 * components * width, graph=graph, unrolled=2 * num_steps * graph + 2 * components * width)


def _saved_bytes(function: Callable[[Tree, Tree], Tree], z: Tree, args: Tree) -> int:
    """Count the bytes that autograd saves in one evaluation, each storage once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaves, structure = flatten(z)
    tracked = [leaf.detach().requires_grad_() for leaf in leaves]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = function(unflatten(tracked, structure), args)
    del value
    return sum(seen.values())
