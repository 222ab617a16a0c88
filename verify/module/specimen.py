"""A user's function on the bench: evaluated as one map in any dtype, its leaves by name, everything put back after."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from revdeq._environment import RandomState, graph_kernels
from revdeq._tree import Leaves, flatten, unflatten
from revdeq.function import Function
from revdeq.function.graph import Graph
from revdeq.function.local import nodes_of
from revdeq.function.reach import is_materialised
from revdeq.function.reads import ReadsSeen, Substituted
from verify.certificate.source import Source
from verify.reference.graph.capture import names_of_tensors
from verify.reference.graph.tracing import leaf_names


class CheckError(ValueError):
    """What is asked of a check cannot be; the message says what can."""


@dataclass(frozen=True)
class Settings:
    """At what a module is checked.

    Attributes:
        beta: relaxation parameter, in (0, 2) and not 1.
        num_steps: N, >= 1.
        gradient_error: relative error of the gradient that is wished of a plan.
    """

    beta: float = 0.5
    num_steps: int = 8
    gradient_error: float = 1e-3

    def __post_init__(self) -> None:
        if not (0 < self.beta < 2 and self.beta != 1):
            raise CheckError(f"beta is {self.beta!r}; it must be in (0, 2) and not 1, where no step can be undone")
        if self.num_steps < 1:
            raise CheckError(f"num_steps is {self.num_steps!r}; it must be at least 1")
        if not 0 < self.gradient_error < 1:
            raise CheckError(f"gradient_error is {self.gradient_error!r}; it must be between 0 and 1")


class Held(NamedTuple):
    """A function at other values of what it reads.

    Attributes:
        function: z -> f(z).
        sources: the tensors that gradients are taken of, in the order of `Specimen.names`.
    """

    function: Callable[[Leaves], Leaves]
    sources: list[Tensor]


class Specimen:
    """A function f(z, args) whose every evaluation finds what the first one found.

    One evaluation, in the constructor, finds what f reads, draws and updates.

    Args:
        source: function, start and args.
        settings: at what it is checked.

    Attributes:
        settings: as given.
        names: of every leaf that gets a gradient: those of z0, of floating args, and of what f captures and trains.
        state_names: of the leaves of z0.
        draws: whether f draws random numbers.
        changes: names of the tensors that f updates in place (buffers, running statistics).
        roundoff: unit roundoff of the narrowest dtype among z0, args and what f reads.

    Raises:
        Exception: whatever f raises, and the sentences of `revdeq` where z0 or what f returns does not fit.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self.settings, self.source, self.function = settings, source, source.function
        self.state_names, z0, self._z_spec = leaf_names("z0", source.z0)
        args_names, self._args, self._args_spec = leaf_names("args", source.args)
        self.z0: Leaves = tuple(leaf.detach().clone() for leaf in z0)
        self._given = {
            name: leaf for name, leaf in zip(args_names, self._args, strict=True) if isinstance(leaf, Tensor)
        }
        self._args_names = args_names
        self._fitted: dict[torch.dtype | None, Function] = {}
        self._learn()
        floating = [name for name, leaf in self._given.items() if leaf.is_floating_point()]
        read = [*self.z0, *(self._given[name] for name in floating), *self.captured.values(), *self._constants]
        self.roundoff = max(torch.finfo(tensor.dtype).eps for tensor in read) / 2
        self.names = (*self.state_names, *floating, *self.captured)

    def _learn(self) -> None:
        fitted = self._fit(None)
        devices = {leaf.device.index for leaf in self.z0 if leaf.device.type == "cuda"}
        state = tuple(leaf.clone().requires_grad_() for leaf in self.z0)
        if not is_materialised(self.function):
            with torch.no_grad():  # a lazy module takes its shapes in its first call
                fitted.evaluate(self.z0, self.source.args)
        self._random = RandomState.now(tuple(devices))
        reads = ReadsSeen((*state, *self._given.values()))
        with torch.enable_grad():
            value = fitted.evaluate(state, self.source.args, reads)
        named = tuple(reads.generators.values())
        self._random = replace(self._random, named=named)
        self.draws = not self._random.same_as(RandomState.now(tuple(devices), [generator for generator, _ in named]))
        self._updated = [*reads.updated(), *reads.statistics()]
        self.put_back()
        trained = reads.trainable()
        seen = (*state, *self._given.values(), *trained)
        known = {id(tensor) for tensor in seen}
        trained += [leaf for key, leaf in Graph.of(value, nodes_of(seen)).leaves.items() if key not in known]
        self._names = names_of_tensors(self.function)
        self.captured = {self._name(tensor, place): tensor for place, tensor in enumerate(trained)}
        constants = [*reads.constants(), *(tensor for tensor, _ in self._updated)]
        self._constants = [tensor for tensor in constants if tensor.is_floating_point()]
        self.changes = [self._name(tensor, place) for place, (tensor, _) in enumerate(self._updated)]
        self.value: Leaves = tuple(leaf.detach() for leaf in value)

    def _name(self, tensor: Tensor, place: int) -> str:
        return self._names.get(id(tensor), f"captured.{place}")

    def _fit(self, dtype: torch.dtype | None) -> Function:
        """The function with the checks of what it returns, for a state in a dtype; None for its own."""
        if dtype not in self._fitted:
            z0 = [leaf if dtype is None else leaf.to(dtype) for leaf in self.z0]
            self._fitted[dtype] = Function(self.function, unflatten(z0, self._z_spec), self.source.args)
        return self._fitted[dtype]

    def put_back(self) -> None:
        """Bring generators, buffers and statistics to where the first evaluation found them."""
        self._random.restore()
        for tensor, value in self._updated:
            tensor.data.copy_(value)

    @contextmanager
    def untouched(self) -> Generator[None]:
        """A block that begins where the first evaluation began, and that leaves nothing of what f draws and updates."""
        self.put_back()
        try:
            yield
        finally:
            self.put_back()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that f is given or was seen to read, by name, as it is now."""
        constants = {self._name(tensor, place): tensor for place, tensor in enumerate(self._constants)}
        return self._given | constants | self.captured

    def evaluate(self, z: Leaves) -> Leaves:
        """The value of f at a state in its own dtype, in the grad mode that holds."""
        with self.untouched(), graph_kernels():
            return self._fit(None).evaluate(z, self.source.args)

    def leaves(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Copies of all leaves that require grad, in a dtype or in their own."""
        own = dict(zip(self.state_names, self.z0, strict=True)) | self._given | self.captured
        return {name: _copy(own[name], dtype).requires_grad_() for name in self.names}

    @contextmanager
    def held(self, leaves: Mapping[str, Tensor], dtype: torch.dtype) -> Generator[Held]:
        """A block in which f reads other values: of args, of what it captures and trains, and its constants in a dtype.

        The data of the user's own tensors is exchanged for a while, so that custom and compiled parts of f see it too;
        what is no leaf of its graph is replaced in every operation that torch shows to a function mode.

        Args:
            leaves: as `leaves` returns them.
            dtype: of the state, of all that f reads and of its value.
        """
        fitted, args = self._fit(dtype), self.args(leaves, dtype)
        own = [tensor for tensor in (*self.captured.values(), *self._constants) if tensor.is_leaf]
        before = [(tensor, tensor.data) for tensor in own]
        replaced = {id(tensor): leaves[name] for name, tensor in self.captured.items() if not tensor.is_leaf}
        sources = {name: leaves[name] for name in self.names}
        sources |= {name: tensor for name, tensor in self.captured.items() if tensor.is_leaf}

        def evaluate(z: Leaves) -> Leaves:
            self.put_back()
            with graph_kernels():
                return fitted.evaluate(z, args, Substituted(replaced) if replaced else None)

        try:
            for tensor in self._constants:
                tensor.data = _copy(tensor, dtype)
            for name, tensor in self.captured.items():
                if tensor.is_leaf:
                    tensor.data = leaves[name].detach().to(dtype)
            yield Held(evaluate, [sources[name] for name in self.names])
        finally:
            for tensor, data in before:
                tensor.data = data

    def args(self, leaves: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Any:
        """Args with some of its tensors replaced, by name."""
        items = [
            leaves[name] if name in leaves else _copy(item, dtype) if isinstance(item, Tensor) else item
            for name, item in zip(self._args_names, self._args, strict=True)
        ]
        return unflatten(items, self._args_spec)

    def tree(self, z: Sequence[Tensor]) -> Any:
        """The leaves of a state as the user's tree."""
        return unflatten(z, self._z_spec)

    def cotangents(self) -> Leaves:
        """dL/dz_N for the loss that gradients are taken of: multiples of 1/8, which every dtype holds."""
        generator = torch.Generator().manual_seed(20260119)
        drawn = [torch.randint(1, 9, leaf.shape, generator=generator) for leaf in self.z0]
        signs = [2 * torch.randint(0, 2, leaf.shape, generator=generator) - 1 for leaf in self.z0]
        return tuple(
            (size * sign / 8).to(leaf.dtype).to(leaf.device)
            for size, sign, leaf in zip(drawn, signs, self.z0, strict=True)
        )


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(wanted, copy=True)


def state_of(tree: Any) -> Leaves:
    """The leaves of a state."""
    return tuple(flatten(tree)[0])
