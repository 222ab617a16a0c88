"""A case: one problem, solved in one way, in one dtype, on one device. Its id is stable and can be typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch


DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
BITWISE = "reversible-bitwise"
"""Name of the iteration on integer states, `revdeq.Reversible(beta, arithmetic="bitwise")`."""

Arithmetic = Literal["floating", "bitwise"]

# A float64 state as integers has steps of 2^-52 of a power of two that is at most twice its greatest component.
_FINEST = 2.0**-51
# Values of f are rounded to a grid this much finer than f's own unit roundoff, where the first steps need no tape.
_GUARD = 2.0**-8
_ID = re.compile(
    r"(?P<problem>[^/]+)/(?P<solver>[^/]+)/beta=(?P<beta>[^/]+)/N=(?P<steps>\d+)/"
    r"(?P<dtype>[a-z0-9]+)(\+(?P<state>[a-z0-9]+))?/(?P<device>[a-z]+)"
)


class CaseError(ValueError):
    """A case id that names nothing; the message gives the form of an id."""


@dataclass(frozen=True, order=True)
class Case:
    """One setting that checks measure.

    Args:
        problem: name of the problem.
        beta: relaxation parameter.
        num_steps: number of steps N.
        dtype: dtype in which f is evaluated, a key of `DTYPES`.
        state_dtype: dtype of the states, a key of `DTYPES`.
        device: device type.
        solver: name of the iteration, "reversible", `BITWISE`, or that of one of `verify.methods`.
    """

    problem: str
    beta: float
    num_steps: int
    dtype: str = "float64"
    state_dtype: str = "float64"
    device: str = "cpu"
    solver: str = "reversible"

    def __post_init__(self) -> None:
        for name in (self.dtype, self.state_dtype):
            if name not in DTYPES:
                raise CaseError(f"dtype {name!r} is not known: give one of {', '.join(DTYPES)}.")

    @property
    def id(self) -> str:
        """The id PROBLEM/SOLVER/beta=B/N=N/DTYPE/DEVICE, DTYPE float32+float64 for states wider than f."""
        dtype = self.dtype if self.dtype == self.state_dtype else f"{self.dtype}+{self.state_dtype}"
        return f"{self.problem}/{self.solver}/beta={self.beta!r}/N={self.num_steps}/{dtype}/{self.device}"

    @staticmethod
    def parse(text: str) -> Case:
        """The case with this id.

        Raises:
            CaseError: if `text` has not the form of an id.
        """
        match = _ID.fullmatch(text)
        try:
            if match is None:
                raise ValueError(text)
            return Case(
                problem=match["problem"],
                beta=float(match["beta"]),
                num_steps=int(match["steps"]),
                dtype=match["dtype"],
                state_dtype=match["state"] or match["dtype"],
                device=match["device"],
                solver=match["solver"],
            )
        except ValueError:
            raise CaseError(
                f"case {text!r} is not PROBLEM/SOLVER/beta=B/N=N/DTYPE/DEVICE: copy an id from a results file, "
                "such as tanh/reversible/beta=0.5/N=4/float32+float64/cpu."
            ) from None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch dtype in which f is evaluated."""
        return DTYPES[self.dtype]

    @property
    def torch_state_dtype(self) -> torch.dtype:
        """The torch dtype of the states."""
        return DTYPES[self.state_dtype]

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff u of f's dtype, half the distance from 1 to the next number."""
        return torch.finfo(self.torch_dtype).eps / 2

    @property
    def state_unit_roundoff(self) -> float:
        """Unit roundoff u of the states; of integer states that of a component as great as the greatest.

        Integers are rounded down, which errs by up to twice as much as rounding to nearest.
        """
        if self.arithmetic == "floating":
            return torch.finfo(self.torch_state_dtype).eps / 2
        m = round(1 / abs(1 - self.beta))
        return max(_FINEST, _GUARD * self.unit_roundoff) if m & (m - 1) == 0 else _FINEST

    @property
    def arithmetic(self) -> Arithmetic:
        """How half steps are done and undone."""
        return "bitwise" if self.solver == BITWISE else "floating"

    @property
    def accumulate_roundoff(self) -> float:
        """Unit roundoff inside sums and products: float32's for the 16-bit dtypes, else f's own."""
        return min(self.unit_roundoff, torch.finfo(torch.float32).eps / 2)
