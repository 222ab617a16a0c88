"""The surroundings of an evaluation of f: random state, autocast and numerical flags, recorded and brought back."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """The states of the random number generators that f can reach: the CPU's and those of the given CUDA devices."""

    cpu: torch.Tensor
    cuda: tuple[tuple[int, torch.Tensor], ...]

    @staticmethod
    def now(devices: Sequence[int]) -> "RandomState":
        """Record the states as they stand.

        Args:
            devices: indices of the CUDA devices whose generators count.
        """
        return RandomState(torch.get_rng_state(), tuple((i, torch.cuda.get_rng_state(i)) for i in devices))

    def restore(self) -> None:
        """Put the generators back to this state."""
        torch.set_rng_state(self.cpu)
        for index, state in self.cuda:
            torch.cuda.set_rng_state(state, index)

    def same_as(self, other: "RandomState") -> bool:
        """Whether no generator has moved between the two."""
        return torch.equal(self.cpu, other.cpu) and all(
            torch.equal(a, b) for (_, a), (_, b) in zip(self.cuda, other.cuda, strict=True)
        )


@dataclass(frozen=True)
class Flags:
    """The switches that change what an operation computes, per thread or per process."""

    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    default_dtype: torch.dtype
    deterministic: tuple[bool, bool]
    matmul_precision: str
    cudnn: tuple[bool, bool, bool]

    @staticmethod
    def now(device_types: Sequence[str]) -> "Flags":
        """Record the switches as they stand.

        Args:
            device_types: such as ("cpu", "cuda"); those whose autocast counts.
        """
        return Flags(
            tuple((d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in device_types),
            torch.get_default_dtype(),
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
            torch.get_float32_matmul_precision(),
            (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        )

    def _apply(self) -> None:
        torch.set_default_dtype(self.default_dtype)
        torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.backends.cudnn.deterministic = self.cudnn[0]
        torch.backends.cudnn.benchmark = self.cudnn[1]
        torch.backends.cudnn.allow_tf32 = self.cudnn[2]

    @contextlib.contextmanager
    def active(self) -> Generator[None]:
        """Make these switches hold inside the block; outside it everything is as before."""
        before = Flags.now([device for device, _, _ in self.autocast])
        with contextlib.ExitStack() as stack:
            for device, enabled, dtype in self.autocast:
                if enabled or (device, enabled, dtype) not in before.autocast:
                    # Without the cache of cast weights: a cast made in one replay must not enter the graph of the next.
                    stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False))
            changed = (
                before.default_dtype,
                before.deterministic,
                before.matmul_precision,
                before.cudnn,
            ) != (self.default_dtype, self.deterministic, self.matmul_precision, self.cudnn)
            if changed:
                self._apply()
                stack.callback(before._apply)
            yield
