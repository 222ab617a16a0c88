"""What N steps should give, how much rounding may change it, and how far a run is from it.

NOTE [The reference and the scale]
Expected is autograd through a plain loop with everything in float64; in the module's own dtype where f cannot be
evaluated in float64 or draws other random numbers there. The scale of a leaf is what rounding alone should do to it:
the same loop with every number that passes into and out of f multiplied by 1 + epsilon xi, xi normal numbers, gives
differences that are scaled to the unit roundoff; one rounding of the result is added. A sum inside f rounds more often
than that; that is why the error of autograd in the module's own dtype counts as scale too. Where that is what is
expected, one rounding of the greatest leaf stands for what may cancel inside f (the gradient of a bias before
normalisation is nothing but rounding). What is judged, R, is the error over the scale, leaf by leaf, both as root mean
squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq._tree import Leaves
from verify.module.specimen import Specimen
from verify.module.steps import WIDE, Run, first_line, own_run, run_at


PERTURBATION = 2.0**-20
"""epsilon: its square is lost beside what it does, and float64's rounding too."""

SEEDS = 2


class Noise:
    """Multiplies what passes into and out of f by 1 + epsilon xi, other numbers at every evaluation.

    Args:
        size: epsilon.
        seed: of xi.
    """

    def __init__(self, size: float, seed: int) -> None:
        self._size, self._generator = size, torch.Generator().manual_seed(seed)

    def __call__(self, f: Callable[[Leaves], Leaves]) -> Callable[[Leaves], Leaves]:
        """Put f between two disturbances."""
        return lambda z: self._disturbed(f(self._disturbed(z)))

    def _disturbed(self, leaves: Leaves) -> Leaves:
        return tuple(leaf * (1 + self._size * self._drawn(leaf)) for leaf in leaves)

    def _drawn(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self._generator, dtype=torch.float64)
        return drawn.to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class Expected:
    """What a run should give, and the scale of its rounding; see NOTE [The reference and the scale].

    Attributes:
        values: of the reference run, by name.
        scale: root mean square of what rounding does, by name.
        words: what it is, in words.
    """

    values: dict[str, Tensor]
    scale: dict[str, float]
    words: str

    @staticmethod
    def of(specimen: Specimen) -> Expected:
        """Run the reference, and the runs with noise."""
        own, roundoff = own_run(specimen), specimen.roundoff
        reference, why = _wide_run(specimen, own)
        wide = reference is not None
        values = (own if reference is None else reference).values
        epsilon = max(PERTURBATION, roundoff) if wide else roundoff**0.5

        def disturbed(seed: int) -> Run:
            noise = Noise(epsilon, seed)
            return run_at(specimen, specimen.leaves(WIDE), WIDE, noise) if wide else own_run(specimen, noise)

        noisy = [disturbed(seed).values for seed in range(SEEDS)]
        greatest = max(rms(value) for value in values.values())
        scale = {
            name: max(
                roundoff / epsilon * rms(*(run[name].double() - value.double() for run in noisy)),
                roundoff * (rms(value) if wide else greatest),
                rms(own.values[name].double() - value.double()),
            )
            for name, value in values.items()
        }
        return Expected(values, scale, "autograd through a plain loop, " + ("in float64" if wide else why))

    def worst(self, got: Run) -> Ratio:
        """The leaf whose error is greatest over its scale, one with a NaN before all others."""
        return max((self._ratio(name, got.values[name]) for name in self.values), key=lambda ratio: ratio.order)

    def _ratio(self, name: str, got: Tensor) -> Ratio:
        expected = self.values[name]
        apart = got.double() - expected.double()
        if not apart.numel():
            return Ratio(name, (), 0.0, 0.0, 0.0)
        error, scale = rms(apart), self.scale[name]
        worst = torch.nan_to_num(apart.abs(), nan=torch.inf).argmax()
        index = tuple(int(i) for i in torch.unravel_index(worst, got.shape))
        # Nothing is allowed where rounding does nothing.
        ratio = error / scale if scale > 0 else (0.0 if error == 0 else math.inf)
        return Ratio(name, index, ratio, float(got[index]), float(expected[index]))


def _wide_run(specimen: Specimen, own: Run) -> tuple[Run | None, str]:
    """The run in float64, or why there is none."""
    try:
        found = run_at(specimen, specimen.leaves(WIDE), WIDE)
    except Exception as error:  # noqa: BLE001  (whatever f cannot do in another dtype, it says)
        return None, f"in its own dtype, for f cannot be had in float64 ({first_line(error)})"
    ends = [name for name in own.values if name.startswith("z1")]
    apart = rms(*(own.values[name].double() - found.values[name] for name in ends))
    if specimen.draws and not apart <= specimen.roundoff**0.5 * rms(*(found.values[name] for name in ends)):
        return None, "in its own dtype, for f draws other random numbers in float64"
    return found, ""


@dataclass(frozen=True)
class Ratio:
    """The error of a leaf over its scale, at its worst component.

    Attributes:
        leaf: its name.
        index: of the worst component.
        value: R.
        got: there.
        expected: there.
    """

    leaf: str
    index: tuple[int, ...]
    value: float
    got: float
    expected: float

    @property
    def order(self) -> float:
        """R, a NaN above all."""
        return math.inf if math.isnan(self.value) else self.value

    def text(self) -> str:
        """The leaf with its index, and the numbers."""
        place = self.leaf + (str(list(self.index)) if self.index else "")
        return f"{place}: got {self.got:.6g}, expected {self.expected:.6g}, measured {self.value:.3g} ratio R"


def rms(*tensors: Tensor) -> float:
    """Root mean square over all components of some tensors; 0 for empty ones."""
    joined = torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])
    return float(joined.norm()) / joined.numel() ** 0.5 if joined.numel() else 0.0
