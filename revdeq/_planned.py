"""What a plan says: errors, bits, reach, work and memory of a solve before it runs."""

from dataclasses import dataclass
from typing import Literal

import torch

from revdeq._memory import Memory


class PlanError(ValueError):
    """The wish cannot be met; the message says what is reachable and what would meet it."""


@dataclass(frozen=True)
class Reach:
    """How far one way of keeping the states reaches, at the planned beta.

    Attributes:
        mode: "floating" states as narrow as f, "wide" ones in `state_dtype`, or "bitwise", integers and remainders.
        state_dtype: dtype of the states.
        betas: where it holds: the planned beta, or for "bitwise" the nearest that have the form 1 - 1/m or 1 + 1/m.
        num_steps: greatest number of steps, of those that were considered, after which the N-step gradient is as right
            as was wished; 0 if none is.
        bits_left: -log2 of the gradient's rounding error after the planned number of steps, at least 0.
    """

    mode: Literal["floating", "wide", "bitwise"]
    state_dtype: torch.dtype
    betas: tuple[float, ...]
    num_steps: int
    bits_left: float


@dataclass(frozen=True)
class Plan:
    """What a solve is predicted to do. Predictions are those of a normal df/dz with the spectrum said, not bounds.

    Rounding is predicted by `revdeq._precision`, whose envelope is confirmed by measurement.

    Attributes:
        beta: relaxation parameter for `Reversible`.
        arithmetic: "floating" or "bitwise", for `Reversible`.
        num_steps: steps, each two evaluations of f.
        rate: asymptotic contraction rate per step.
        residual: ||f(z_N) - z_N|| over ||f(z_0) - z_0||.
        solution_error: |z_N - z*| over |z_0 - z*|.
        truncation_error: relative difference of the N-step gradient and the implicit one.
        rounding_error: relative error of the reversed N-step gradient.
        gradient_error: what the plan was asked to keep small: rounding, and truncation where the target is the fixed
            point.
        bits_left: -log2 of rounding_error.
        bits_lost: bits that the reversal costs the gradient: log2 of rounding_error over that of stored states.
        reach: how far each way of keeping the states reaches.
        evaluations: evaluations of f, forward and backward together (4 N).
        vjps: vector-Jacobian products (2 N).
        memory: bytes, or None where the state was not given.
        tape: bytes of the remainders of bitwise arithmetic, 0 for floating; None where the state was not given.
        dtype: dtype of z0 and of f.
        state_dtype: dtype of the coupled states, int64 in bitwise arithmetic.
        target: "fixed-point" or "n-step".
        considered: greatest number of steps that was considered.
        spectrum: what was assumed of the eigenvalues of df/dz, in words.
    """

    beta: float
    arithmetic: Literal["floating", "bitwise"]
    num_steps: int
    rate: float
    residual: float
    solution_error: float
    truncation_error: float
    rounding_error: float
    gradient_error: float
    bits_left: float
    bits_lost: float
    reach: tuple[Reach, ...]
    evaluations: int
    vjps: int
    memory: Memory | None
    tape: int | None
    dtype: torch.dtype
    state_dtype: torch.dtype
    target: str
    considered: int
    spectrum: str

    def __str__(self) -> str:
        said = ", arithmetic='bitwise'" if self.arithmetic == "bitwise" else ""
        kept = "integer states" if said else f"states in {dtype_name(self.state_dtype)}"
        lines = [
            f"Reversible(beta={self.beta:.6g}{said}), {self.num_steps} steps   [{self.spectrum}]",
            f"  rate per step        {self.rate:.6g}",
            f"  residual             {self.residual:.2e} of the initial one",
            f"  gradient error       {self.gradient_error:.2e}   ({self.target})",
            f"    truncation         {self.truncation_error:.2e}   N-step against implicit gradient",
            f"    rounding           {self.rounding_error:.2e}   f in {dtype_name(self.dtype)}, {kept}",
            f"  bits                 {self.bits_left:.1f} left, {self.bits_lost:.1f} lost to the reversal",
            *(self._reach_line(reach) for reach in self.reach),
            f"  work                 {self.evaluations} evaluations of f and {self.vjps} VJPs, backward included",
        ]
        if self.memory is not None:
            lines.append(
                f"  memory               {self.memory.reversible} bytes at any number of steps; "
                f"unrolled {self.memory.unrolled} bytes"
            )
        if self.tape:
            lines.append(f"  remainders           {self.tape} bytes, which grow with the steps")
        lines.append("  predictions for a normal df/dz with this spectrum at the fixed point; not bounds")
        return "\n".join(lines)

    def _reach_line(self, reach: Reach) -> str:
        at_most = reach.num_steps >= self.considered
        steps = "no step" if not reach.num_steps else f"{reach.num_steps} steps" + (" or more" if at_most else "")
        kept = "integer states" if reach.mode == "bitwise" else f"states {dtype_name(reach.state_dtype)}"
        where = "" if reach.betas == (self.beta,) else " at beta " + " or ".join(f"{b:.6g}" for b in reach.betas)
        return f"  {reach.mode:<20} {steps}, {reach.bits_left:.1f} bits after {self.num_steps}: {kept}{where}"


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without its module."""
    return str(dtype).removeprefix("torch.")
