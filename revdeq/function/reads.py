"""What enters the operations of one evaluation of f: tensors from outside it, generators, and what it writes to."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.weak import TensorWeakRef

from revdeq._tree import flatten, unflatten


# These update the running statistics that they are given without raising the tensors' version counters.
_UPDATES_STATISTICS: frozenset[Any] = frozenset(
    {
        torch.nn.functional.batch_norm,
        torch.nn.functional.instance_norm,
        torch.batch_norm,
        torch.instance_norm,
        torch.native_batch_norm,
    }
)


# The names of operations that draw from a generator; of others it is found out where a generator moved.
_DRAWS = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
        *("normal", "bernoulli", "multinomial", "poisson", "binomial", "gumbel_softmax", "rrelu"),
        *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
        *("dropout1d", "dropout2d", "dropout3d", "dropout_"),
        *("uniform_", "normal_", "random_", "exponential_", "cauchy_", "log_normal_", "geometric_", "bernoulli_"),
    }
)


_HOOKS = (torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook, torch.Tensor.retain_grad)


class ReadsSeen(TorchFunctionMode):
    """Collects the tensors that enter an operation and were not made by one before; see NOTE [What f reads].

    Args:
        known: tensors that count as made inside.

    Attributes:
        generators: the random number generators named in a call, each with its state before the first such call.
        drew: whether an operation was seen that draws random numbers by its name.
        hooks: whether a hook was set.
        initialised: whether an operation was seen that writes into a trainable tensor.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._inside = {id(t) for t in known}
        # Weak: what a hidden call made inside must not outlive the evaluation.
        self._seen: dict[int, TensorWeakRef] = {}
        self._versions: dict[int, int] = {}
        self._before: dict[int, torch.Tensor] = {}
        self._statistics: set[int] = set()
        self.generators: dict[int, tuple[torch.Generator, torch.Tensor]] = {}
        self.drew = self.initialised = self.hooks = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (*args, *kwargs.values()) if kwargs else args
        inside, seen = self._inside, self._seen
        for value in given:
            if isinstance(value, torch.Tensor):
                if id(value) not in inside and id(value) not in seen:
                    self._enter(value)
            elif type(value) in (tuple, list, dict):
                for tensor in _tensors(value):
                    self._enter(tensor)
            elif type(value) is torch.Generator and id(value) not in self.generators:
                self.generators[id(value)] = (value, value.get_state())
        if func in _UPDATES_STATISTICS:
            for tensor in _tensors(given):
                if id(tensor) in seen and not tensor.requires_grad:
                    self._statistics.add(id(tensor))
                    self._before.setdefault(id(tensor), tensor.detach().clone())
        elif _writes(func, kwargs):
            for tensor in _tensors([args[:1], (kwargs or {}).get("out")]):
                owner = self._owner(tensor)
                if owner is not None and owner.requires_grad:
                    self.initialised = True
                elif owner is not None:
                    self._before.setdefault(id(owner), owner.detach().clone())
        self.hooks = self.hooks or func in _HOOKS
        self.drew = self.drew or getattr(func, "__name__", "") in _DRAWS
        result = func(*args, **kwargs) if kwargs else func(*args)
        for tensor in (result,) if isinstance(result, torch.Tensor) else _tensors(result):
            known = seen.get(id(tensor))
            # Its id may be that of one that a transform inside made, and that is gone.
            if known is None or known() is not tensor:
                inside.add(id(tensor))
        return result

    def _enter(self, tensor: torch.Tensor) -> None:
        # The id of a tensor made inside can be taken over only by another one made inside: what was made outside stays
        # alive throughout.
        if id(tensor) not in self._inside and id(tensor) not in self._seen:
            self._seen[id(tensor)] = TensorWeakRef(tensor)
            self._versions[id(tensor)] = version(tensor)

    def _owner(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the tensor from outside in whose memory an operation writes that writes into `tensor`."""
        if id(tensor) in self._seen:
            return tensor
        memory = _memory(tensor)
        return None if memory is None else next((t for t in self._alive() if _memory(t) == memory), None)

    def take_for_inside(self, tensors: Iterable[torch.Tensor]) -> None:
        """Let more tensors count as made inside."""
        self._inside.update(id(t) for t in tensors)

    def trainable(self) -> list[torch.Tensor]:
        """Return the tensors that require grad, in the order in which they were read."""
        return [t for t in self._alive() if t.requires_grad]

    def updated(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the tensors without gradient that the evaluation changed in place, each with its value before.

        Running statistics are not among them, nor are those changed by an operation that does not say so in its name.
        """
        changed = [t for t in self._alive() if id(t) in self._before and id(t) not in self._statistics]
        return [(t, self._before[id(t)]) for t in changed]

    def statistics(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the running statistics that the evaluation updated, each with its value before."""
        return [(t, self._before[id(t)]) for t in self._alive() if id(t) in self._statistics]

    def constants(self) -> list[torch.Tensor]:
        """Return the tensors without gradient that the evaluation left as they were."""
        return [t for t in self._alive() if not t.requires_grad and not self._changed(t)]

    def _alive(self) -> Iterator[torch.Tensor]:
        for reference in self._seen.values():
            tensor = reference()
            if tensor is not None:
                yield tensor

    def _changed(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._statistics or version(tensor) != self._versions[id(tensor)]


class Substituted(TorchFunctionMode):
    """Puts other tensors in the place of captured ones, by identity, in every operation inside the block.

    Args:
        substitutes: what to put in the place of the tensor with this id.
    """

    _active = threading.local()

    def __init__(self, substitutes: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self._substitutes = substitutes

    @staticmethod
    def current(tensor: torch.Tensor) -> torch.Tensor:
        """Return what operations now get in the place of `tensor`: a solve inside another one's f attaches to that."""
        for mode in reversed(Substituted._stack()):
            tensor = mode._substitutes.get(id(tensor), tensor)
        return tensor

    @staticmethod
    def _stack() -> "list[Substituted]":
        if not hasattr(Substituted._active, "stack"):
            Substituted._active.stack = []
        return Substituted._active.stack

    def __enter__(self) -> "Substituted":
        self._stack().append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._stack().pop()
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves, structure = flatten((args, kwargs or {}))
        entering, named = unflatten([self._substitutes.get(id(leaf), leaf) for leaf in leaves], structure)
        return func(*entering, **named)


def version(tensor: torch.Tensor) -> int:
    """Return the counter of in-place changes of the tensor; 0 for those that have none or no memory yet."""
    return 0 if is_lazy(tensor) or tensor.is_inference() else tensor._version


def _memory(tensor: torch.Tensor) -> int | None:
    """Return what names the memory of a tensor, which its views and its `.data` share; None where it has none."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)  # a transform's wrapper has none of its own
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return None
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _writes(func: Any, kwargs: dict[str, Any] | None) -> bool:
    """Return whether an operation changes its first argument, or `out`, in place."""
    name: str = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    in_place = in_place or name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__"))
    return in_place or bool(kwargs and kwargs.get("out") is not None)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tensors(item)
