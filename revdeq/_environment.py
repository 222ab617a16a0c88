"""The surroundings of an evaluation of f: random state, autocast and numerical flags, recorded and brought back."""

import contextlib
import operator
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import backends
from torch.amp.autocast_mode import is_autocast_available
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class RandomState:
    """The states of the random number generators that f can reach.

    These are the CPU's, those of the given CUDA devices, and the generators that f names in its calls.
    """

    cpu: torch.Tensor
    cuda: tuple[tuple[int, torch.Tensor], ...]
    named: tuple[tuple[torch.Generator, torch.Tensor], ...] = ()

    @staticmethod
    def now(devices: Sequence[int], named: Sequence[torch.Generator] = ()) -> "RandomState":
        """Record the states as they stand.

        Args:
            devices: indices of the CUDA devices whose generators count.
            named: further generators that count.
        """
        return RandomState(
            torch.get_rng_state(),
            tuple((i, torch.cuda.get_rng_state(i)) for i in devices),
            tuple((g, g.get_state()) for g in named),
        )

    def restore(self) -> None:
        """Put the generators back to this state."""
        torch.set_rng_state(self.cpu)
        for index, state in self.cuda:
            torch.cuda.set_rng_state(state, index)
        for generator, state in self.named:
            generator.set_state(state)

    def same_as(self, other: "RandomState") -> bool:
        """Whether no generator has moved between the two."""
        return torch.equal(self.cpu, other.cpu) and all(
            torch.equal(a, b) for (_, a), (_, b) in zip(self.cuda + self.named, other.cuda + other.named, strict=True)
        )


class DrawsRefused(TorchDispatchMode):
    """Refuses random numbers while a CUDA graph is captured.

    The state of a generator cannot be read then, so no evaluation could repeat what the first one drew.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and _chance(func, args, given) != 0.0:
            raise ValueError(
                f"function draws random numbers ({func}) while a CUDA graph is captured; every evaluation has to draw "
                "the same, and the generator cannot be set back in a capture: put the module into evaluation mode "
                "with .eval(), or draw before the solve and pass what was drawn in args."
            )
        return func(*args, **given)


class DrawsSeen(TorchDispatchMode):
    """Notices random numbers that are drawn inside the block.

    Attributes:
        drew: whether any were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drew = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        self.drew = self.drew or (torch.Tag.nondeterministic_seeded in func.tags and _chance(func, args, given) != 0.0)
        return func(*args, **given)


def _chance(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Return the chance of dropout that an operation is given; 1 for one that draws without being told."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name in ("dropout_p", "dropout"):
            return float(args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value))
    return 1.0


class _Switch(NamedTuple):
    """One process-wide setting that changes what an operation computes."""

    read: Callable[[], Any]
    write: Callable[[Any], None]


def _attribute(owner: Any, name: str) -> _Switch:
    def write(value: Any) -> None:
        setattr(owner, name, value)

    return _Switch(lambda: getattr(owner, name), write)


def _write_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


class _Precision:
    """How matrix products and convolutions in float32 are computed, in the older and the newer words of torch.

    From torch 2.9 on the older words raise when read after the newer ones said something that they cannot express; then
    the newer ones are written back, and else the older ones, which set the newer ones too.
    """

    def __init__(self, old: _Switch, paths: Sequence[str]) -> None:
        self._old = old
        newer = hasattr(backends, "fp32_precision")
        self._new = [_attribute(operator.attrgetter(p)(backends), "fp32_precision") for p in paths] if newer else []

    def read(self) -> Any:
        try:
            old = self._old.read()
        except RuntimeError:
            old = None  # not expressible
        return old, [switch.read() for switch in self._new]

    def write(self, value: Any) -> None:
        old, new = value
        if old is not None:
            self._old.write(old)
        for switch, wanted in zip(self._new, new, strict=True):
            if switch.read() != wanted:
                switch.write(wanted)

    def switch(self) -> _Switch:
        return _Switch(self.read, self.write)


_FASTPATH = _Switch(backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled)


@contextlib.contextmanager
def graph_kernels() -> Generator[None]:
    """Compute attention layers inside the block as where a graph is recorded.

    Without one, torch takes a fast path in evaluation mode that is another map: it sets padded positions to zero.
    """
    before = _FASTPATH.read()
    _FASTPATH.write(False)
    try:
        yield
    finally:
        _FASTPATH.write(before)


_SWITCHES: tuple[_Switch, ...] = (
    _Switch(torch.get_default_dtype, torch.set_default_dtype),
    _Switch(
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _write_deterministic,
    ),
    _FASTPATH,
    _attribute(backends.cudnn, "deterministic"),
    _attribute(backends.cudnn, "benchmark"),
    _Switch(backends.cuda.flash_sdp_enabled, backends.cuda.enable_flash_sdp),
    _Switch(backends.cuda.mem_efficient_sdp_enabled, backends.cuda.enable_mem_efficient_sdp),
    _Switch(backends.cuda.math_sdp_enabled, backends.cuda.enable_math_sdp),
    _Switch(backends.cuda.cudnn_sdp_enabled, backends.cuda.enable_cudnn_sdp),
    _Precision(
        _Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        ("cuda.matmul", "mkldnn.matmul"),
    ).switch(),
    _Precision(_attribute(backends.cudnn, "allow_tf32"), ("cudnn.conv", "cudnn.rnn")).switch(),
)


def autocasting(device_type: str) -> bool:
    """Return whether autocast is on for a kind of device; the meta device, for one, has none."""
    return is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which autocast is off for a kind of device."""
    return torch.autocast(device_type, enabled=False) if autocasting(device_type) else contextlib.nullcontext()


@dataclass(frozen=True)
class Flags:
    """The switches that change what an operation computes: autocast (per thread), the others (per process)."""

    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    switches: tuple[Any, ...]

    @staticmethod
    def now(device_types: Sequence[str]) -> "Flags":
        """Record the switches as they stand.

        Args:
            device_types: such as ("cpu", "cuda"); those whose autocast counts, where they have one.
        """
        return Flags(
            tuple(
                (d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d))
                for d in device_types
                if is_autocast_available(d)
            ),
            tuple(switch.read() for switch in _SWITCHES),
        )

    @property
    def autocasting(self) -> bool:
        """Whether autocast is on for any of the device types."""
        return any(enabled for _, enabled, _ in self.autocast)

    def _write_where_not(self, others: "Flags") -> None:
        for switch, value, other in zip(_SWITCHES, self.switches, others.switches, strict=True):
            if value != other:
                switch.write(value)

    @contextlib.contextmanager
    def active(self) -> Generator[None]:
        """Make these switches hold inside the block; outside it everything is as before."""
        before = Flags.now([device for device, _, _ in self.autocast])
        with contextlib.ExitStack() as stack:
            for device, enabled, dtype in self.autocast:
                if enabled or (device, enabled, dtype) not in before.autocast:
                    # Without the cache of cast weights: a cast made in one replay must not enter the graph of the next.
                    stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False))
            self._write_where_not(before)
            stack.callback(before._write_where_not, self)
            yield
