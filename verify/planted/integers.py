"""The control's iteration on integers, and the faults that reversal to the bit can have.

States are integer multiples of 2^-44 below 2^9 in magnitude, held by float64; a half step divides by m and keeps the
remainder, log2 m bits a component where m is a power of two. Nothing here imports the product's arithmetic.

References:
    Maclaurin, Duvenaud, Adams, arXiv 1502.03492, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from verify.subject import Function, Settings, Solved


UNIT = 2.0**-44
GREATEST = 2**53


@dataclass
class Problem:
    """What one solve on integers has.

    Args:
        function: the map f(z, args).
        z0: the start.
        args: what is passed to f.
        settings: how it is solved.
        inputs: tensors of args that require grad.
        tape: the remainders, two a step, in the order in which they fell.
    """

    function: Function
    z0: Tensor
    args: Any
    settings: Settings
    inputs: list[Tensor] = field(default_factory=list[Tensor])
    tape: list[Tensor] = field(default_factory=list[Tensor])

    @property
    def m(self) -> int:
        """The integer m of beta = 1 - 1/m or 1 + 1/m."""
        return round(1 / abs(1 - self.settings.number))

    @property
    def sign(self) -> int:
        """+1 for beta < 1, -1 for beta > 1."""
        return 1 if self.settings.number < 1 else -1

    def evaluate(self, state: Tensor) -> Tensor:
        """Value of f, in z0's dtype, at an alias of the state: what f makes of it is summed before it meets others."""
        return self.function(state.view_as(state).to(self.z0.dtype), self.args)


class _Half(torch.autograd.Function):
    """A half step on integers with the derivative of the one in real numbers."""

    @staticmethod
    def forward(ctx: Any, moved: Tensor, state: Tensor, value: Tensor, retained: float, beta: float) -> Tensor:
        ctx.retained, ctx.beta, ctx.dtype = retained, beta, value.dtype
        return moved.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        return None, ctx.retained * grad, (ctx.beta * grad).to(ctx.dtype), None, None


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, integers: Integers, problem: Problem, *sources: Tensor) -> tuple[Tensor, Tensor]:
        ctx.integers, ctx.problem = integers, problem
        y, z = integers.forward(problem)
        ctx.save_for_backward(y, z)
        return z.to(problem.z0.dtype), y.to(problem.z0.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator loses the parameter names)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        y, z = ctx.saved_tensors
        p_z, p_y = (grad.to(torch.float64) for grad in grad_outputs)
        return (None, None, *cast("Integers", ctx.integers).backward(ctx.problem, (y, z), (p_y, p_z)))


class Integers:
    """The control: right in every term."""

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """As `verify.subject.Subject.solve`."""
        problem = self.problem(function, z0, args, settings)
        if settings.adjoint in ("reversible", "default"):
            z1, y1 = _Reversal.apply(self, problem, z0, *problem.inputs)
        else:
            y1, z1 = (state.to(z0.dtype) for state in self.forward(problem))
        return Solved(z1, y1, torch.full(z0.shape[:1], settings.num_steps))

    def reconstruct(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> list[tuple[Tensor, Tensor]]:
        """As `verify.subject.Subject.reconstruct`."""
        problem = self.problem(function, z0, args, settings)
        with torch.no_grad():
            y, z = self.forward(problem)
            rebuilt = [(y, z)]
            for n in reversed(range(settings.num_steps)):
                z = self.undo_half(problem, z, problem.evaluate(y), 2 * n + 1)
                y = self.undo_half(problem, y, problem.evaluate(z), 2 * n)
                rebuilt.append((y, z))
        return rebuilt

    def problem(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Problem:
        """What is solved, unless beta has no form."""
        self.refuse(settings)
        values = cast("list[Any]", list(args.values() if isinstance(args, dict) else args))
        inputs = [x for x in values if isinstance(x, Tensor) and x.requires_grad]
        return Problem(function, z0, args, settings, inputs)

    def refuse(self, settings: Settings) -> None:
        """Raise for a beta that integers cannot do."""
        m = round(1 / abs(1 - settings.number)) if settings.number != 1 else 0
        if m < 2 or abs(abs(1 - settings.number) - 1 / m) > 2.0**-51:
            raise ValueError(
                f"beta is {settings.number}, allowed are 1 - 1/m and 1 + 1/m, m = 2, 3, ...: choose another."
            )

    def forward(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """N steps from y = z = z0, which the grid holds."""
        start = problem.z0.to(torch.float64)
        y, z = start.view_as(start), start.view_as(start)
        problem.tape.clear()
        for _ in range(problem.settings.num_steps):
            y = self.half(problem, y, problem.evaluate(z))
            z = self.half(problem, z, problem.evaluate(y))
        return y, z

    def half(self, problem: Problem, state: Tensor, value: Tensor) -> Tensor:
        """Return sign floor(Y / m) + round(beta f) and put the remainder on the tape."""
        beta, m = problem.settings.number, problem.m
        integers = (state.detach() / UNIT).to(torch.int64)
        quotient = torch.div(integers, m, rounding_mode="floor")
        problem.tape.append(self.keep((integers - m * quotient).to(torch.uint8), m))
        moved = problem.sign * quotient + self.addend(value.detach(), beta)
        self.refuse_overflow(moved)
        return cast("Tensor", _Half.apply(moved.to(torch.float64) * UNIT, state, value, 1 - beta, beta))

    def undo_half(self, problem: Problem, state: Tensor, value: Tensor, place: int) -> Tensor:
        """Return m sign (Y' - q) + r."""
        integers = (state / UNIT).to(torch.int64) - self.addend(value.detach(), problem.settings.number)
        remainder = self.recall(problem.tape, place, problem.m, state.numel()).reshape(state.shape)
        return (problem.m * problem.sign * integers + remainder).to(torch.float64) * UNIT

    def addend(self, value: Tensor, beta: float) -> Tensor:
        """round(beta f) in units."""
        return (beta * value.to(torch.float64) / UNIT).round().to(torch.int64)

    def keep(self, remainder: Tensor, m: int) -> Tensor:
        """Digits below m in bytes, as many as fit into one where m is 2, 4 or 16."""
        digits = _digits(m)
        flat = torch.nn.functional.pad(remainder.flatten(), (0, -remainder.numel() % digits)).reshape(-1, digits)
        return sum((flat[:, i] * m**i for i in range(1, digits)), flat[:, 0].clone())

    def recall(self, tape: list[Tensor], place: int, m: int, count: int) -> Tensor:
        """The digits of one entry."""
        digits = _digits(m)
        unpacked = torch.stack([torch.div(tape[place], m**i, rounding_mode="floor") % m for i in range(digits)], dim=1)
        return unpacked.flatten()[:count].to(torch.int64)

    def refuse_overflow(self, moved: Tensor) -> None:
        """Raise where float64 does not hold the integers."""
        if bool((moved.abs() > GREATEST).any()):
            raise OverflowError(f"a state left the range of {GREATEST * UNIT:g}: scale the problem down.")

    def refuse_another_start(self, problem: Problem, y: Tensor, z: Tensor) -> None:
        """Raise where reversal did not end where the iteration began."""
        start = problem.z0.to(torch.float64)
        if not (torch.equal(y, start) and torch.equal(z, start)):
            raise RuntimeError("reversal did not return to z0, so f does not repeat: make it deterministic.")

    def retained(self, beta: float) -> float:
        """The factor that cotangents of a half step's own state take."""
        return 1 - beta

    def backward(
        self, problem: Problem, end: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of z0 and of every input."""
        (y, z), (p_y, p_z) = end, p
        beta, kept = problem.settings.number, self.retained(problem.settings.number)
        totals = [torch.zeros_like(x, dtype=torch.float64) for x in problem.inputs]
        for n in reversed(range(problem.settings.num_steps)):
            value, through = self.pull(problem, y, beta * p_z, totals)
            z = self.undo_half(problem, z, value, 2 * n + 1)
            q = p_y + through
            value, through = self.pull(problem, z, beta * q, totals)
            y = self.undo_half(problem, y, value, 2 * n)
            p_y, p_z = kept * q, kept * p_z + through
        self.refuse_another_start(problem, y, z)
        sums = [total.to(x.dtype) for total, x in zip(totals, problem.inputs, strict=True)]
        return ((p_y + p_z).to(problem.z0.dtype), *sums)

    def pull(self, problem: Problem, state: Tensor, cotangent: Tensor, totals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return f at the state and K^T cotangent; the inputs' parts are added to the totals."""
        with torch.enable_grad():
            local = state.detach().to(problem.z0.dtype).requires_grad_()
            value = problem.function(local, problem.args)
        wanted = [local, *problem.inputs]
        parts = torch.autograd.grad(value, wanted, cotangent.to(value.dtype), allow_unused=True, materialize_grads=True)
        for place, part in enumerate(parts[1:]):
            totals[place] += part.to(torch.float64)
        return value.detach(), parts[0].to(torch.float64)


class FloatingReversal(Integers):
    """Undoes half steps as floating-point arithmetic does."""

    def undo_half(self, problem: Problem, state: Tensor, value: Tensor, place: int) -> Tensor:
        """(y' - beta f) / (1 - beta)."""
        del place
        beta = problem.settings.number
        return (state - beta * value) / (1 - beta)

    def refuse_another_start(self, problem: Problem, y: Tensor, z: Tensor) -> None:
        """It would notice, if it looked."""


class RemaindersDropped(Integers):
    """Undoes half steps without what they lost."""

    def recall(self, tape: list[Tensor], place: int, m: int, count: int) -> Tensor:
        """Zeros."""
        return torch.zeros_like(super().recall(tape, place, m, count))

    def refuse_another_start(self, problem: Problem, y: Tensor, z: Tensor) -> None:
        """It would notice, if it looked."""


class RemaindersInBytes(Integers):
    """A byte for every remainder."""

    def keep(self, remainder: Tensor, m: int) -> Tensor:
        """The digits as they are."""
        del m
        return remainder.flatten().clone()

    def recall(self, tape: list[Tensor], place: int, m: int, count: int) -> Tensor:
        """The digits as they are."""
        del m
        return tape[place][:count].to(torch.int64)


class RoundingDifferentiated(Integers):
    """Takes the derivative of floor for what it is."""

    def retained(self, beta: float) -> float:
        """Zero almost everywhere."""
        return 0.0 * beta


class OverflowWraps(Integers):
    """Lets integers that float64 does not hold be rounded."""

    def refuse_overflow(self, moved: Tensor) -> None:
        """It would notice, if it looked."""

    def refuse_another_start(self, problem: Problem, y: Tensor, z: Tensor) -> None:
        """It would notice, if it looked."""


class ReplayNotCompared(Integers):
    """Takes f's repeating for granted."""

    def refuse_another_start(self, problem: Problem, y: Tensor, z: Tensor) -> None:
        """It would notice, if it looked."""


class EveryBetaTaken(Integers):
    """Rounds beta to one that integers can do."""

    def refuse(self, settings: Settings) -> None:
        """It would notice, if it looked."""


def _digits(m: int) -> int:
    return {2: 8, 4: 4, 16: 2}.get(m, 1)
