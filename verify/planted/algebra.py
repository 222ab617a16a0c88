"""Faults in the vector-Jacobian products and in the algebra of the adjoint recursion, one term wrong in each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verify.planted.base import Honest, Linearised, Run, Sums
from verify.subject import Function, Settings


class ParameterTermAtYDropped(Honest):
    """Drops beta f_theta(y')^T p_z."""

    name = "parameter-term-at-y-dropped"
    description = "the parameters' VJP at y' is left out"

    def accumulate(self, run: Run, sums: Sums, terms: list[Tensor | None], beta: float, which: str) -> None:
        """Only the terms at z."""
        if which == "z":
            super().accumulate(run, sums, terms, beta, which)


class ParameterTermAtZDropped(Honest):
    """Drops beta f_theta(z)^T q."""

    name = "parameter-term-at-z-dropped"
    description = "the parameters' VJP at z is left out"

    def accumulate(self, run: Run, sums: Sums, terms: list[Tensor | None], beta: float, which: str) -> None:
        """Only the terms at y'."""
        if which == "y":
            super().accumulate(run, sums, terms, beta, which)


class CouplingDropped(Honest):
    """Drops beta K(z)^T q from p_z."""

    name = "coupling-dropped"
    description = "the term beta K^T q is left out of p_z"

    def carry_z(self, p_z: Tensor, back: Tensor, beta: float) -> Tensor:
        """(1 - beta) p_z alone."""
        del back
        return (1 - beta) * p_z


class LinearisedAtNextZ(Honest):
    """Takes the second VJP at z' instead of z."""

    name = "vjp-at-next-z"
    description = "the second VJP is taken at z' instead of z"

    def reverse_y(self, run: Run, n: int, y: Tensor, z: Tensor, previous_z: Tensor) -> tuple[Linearised, Tensor]:
        """The right y, the wrong linearisation."""
        _, previous_y = super().reverse_y(run, n, y, z, previous_z)
        return self.linearise(run, z), previous_y


class LinearisedAtPreviousY(Honest):
    """Takes the first VJP at y instead of y'."""

    name = "vjp-at-previous-y"
    description = "the first VJP is taken at y instead of y'"

    def adjoint_step(
        self, run: Run, n: int, at: tuple[Linearised, Linearised], p: tuple[Tensor, Tensor], sums: Sums
    ) -> tuple[Tensor, Tensor]:
        """The right recursion with f linearised at the y before."""
        at_y, at_z = at
        previous_y = self.undo_half(at_y.state.detach(), at_z.value.detach(), run.settings.number)
        return super().adjoint_step(run, n, (self.linearise(run, previous_y), at_z), p, sums)


class ParameterBetaMissing(Honest):
    """Leaves beta out of the parameters' sums."""

    name = "parameter-beta-missing"
    description = "beta is missing from the gradients of parameters and args"

    def accumulate(self, run: Run, sums: Sums, terms: list[Tensor | None], beta: float, which: str) -> None:
        """Unscaled terms."""
        super().accumulate(run, sums, terms, 1.0, which)


class DecayMissingOnY(Honest):
    """Leaves (1 - beta) out of p_y."""

    name = "decay-missing-on-y"
    description = "(1 - beta) is missing on p_y"

    def carry_y(self, q: Tensor, beta: float) -> Tensor:
        """The cotangent undamped."""
        del beta
        return q


class DecayMissingOnZ(Honest):
    """Leaves (1 - beta) out of p_z."""

    name = "decay-missing-on-z"
    description = "(1 - beta) is missing on p_z"

    def carry_z(self, p_z: Tensor, back: Tensor, beta: float) -> Tensor:
        """The cotangent undamped."""
        return p_z + beta * back


class JacobianNotTransposed(Honest):
    """Uses K in place of K^T."""

    name = "jacobian-not-transposed"
    description = "K p is used where K^T p belongs"

    def adjoint_step(
        self, run: Run, n: int, at: tuple[Linearised, Linearised], p: tuple[Tensor, Tensor], sums: Sums
    ) -> tuple[Tensor, Tensor]:
        """The right recursion with the products transposed."""
        at_y, at_z = at
        return super().adjoint_step(run, n, (_Forward.of(at_y), _Forward.of(at_z)), p, sums)


class _Forward(Linearised):
    """A linearisation that multiplies by K where K^T is asked for; the terms of the inputs are right."""

    @staticmethod
    def of(right: Linearised) -> _Forward:
        return _Forward(right.state, right.value, right.inputs)

    def pull(self, cotangent: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        _, rest = super().pull(cotangent)
        seed = torch.zeros_like(self.value, requires_grad=True)
        (transposed,) = torch.autograd.grad(self.value, self.state, seed, create_graph=True)
        if not transposed.requires_grad:
            return torch.zeros_like(cotangent), rest
        (product,) = torch.autograd.grad(transposed, seed, cotangent.to(transposed.dtype), retain_graph=True)
        return product.to(cotangent.dtype), rest


class FirstStepDropped(Honest):
    """Leaves step 0 out of the recursion."""

    name = "first-step-dropped"
    description = "the adjoint of step n = 0 is left out"

    def adjoint_step(
        self, run: Run, n: int, at: tuple[Linearised, Linearised], p: tuple[Tensor, Tensor], sums: Sums
    ) -> tuple[Tensor, Tensor]:
        """Nothing at n = 0."""
        return p if n == 0 else super().adjoint_step(run, n, at, p, sums)


class LastStepsOnly(Honest):
    """Differentiates the last two steps only."""

    name = "last-steps-only"
    description = "only the last two steps are differentiated, as a phantom gradient would"

    def adjoint_step(
        self, run: Run, n: int, at: tuple[Linearised, Linearised], p: tuple[Tensor, Tensor], sums: Sums
    ) -> tuple[Tensor, Tensor]:
        """Nothing before the last two steps."""
        if n < run.settings.num_steps - 2:
            return torch.zeros_like(p[0]), torch.zeros_like(p[1])
        return super().adjoint_step(run, n, at, p, sums)


class ImplicitForExact(Honest):
    """Returns the implicit gradient where the N-step one was asked for."""

    name = "implicit-for-exact"
    description = "the implicit gradient at z_N is returned as the gradient of the N-step map"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """The adjoint fixed-point iteration at z_N."""
        at = self.linearise(run, run.z)
        cotangent = w = p_y + p_z
        for _ in range(200):
            w = cotangent + at.pull(w)[0]
        sums = self.sums(run)
        self.accumulate(run, sums, at.pull(w)[1], 1.0, "z")
        return torch.zeros_like(w), list(sums.totals)


class RelativeErrorInOneTerm(Honest):
    """Scales one term by 1 + 1e-9."""

    name = "relative-error-1e-9"
    description = "the term beta K^T q is wrong by one part in 1e9"

    def carry_z(self, p_z: Tensor, back: Tensor, beta: float) -> Tensor:
        """The second term slightly too large."""
        return (1 - beta) * p_z + beta * (1 + 1e-9) * back


class ImplicitAdjointUnsolved(Honest):
    """Takes one step of the adjoint iteration in place of its solution."""

    name = "implicit-adjoint-unsolved"
    description = "the implicit adjoint stops after one iteration of its linear solve"

    def implicit(self, function: Function, z0: Tensor, args: Any, settings: Settings, z: Tensor) -> Tensor:
        """The one-step (Jacobian-free) gradient."""
        return super().implicit(
            function,
            z0,
            args,
            Settings(
                beta=settings.beta,
                num_steps=settings.num_steps,
                adjoint="implicit",
                state_dtype=settings.state_dtype,
                tolerance=1e3,
            ),
            z,
        )


class JacobiUpdate(Honest):
    """Updates both states from those before the step."""

    name = "jacobi-update"
    description = "z' takes f at the y before the step, not at the y' just computed"

    def forward(self, run: Run, start: Tensor) -> tuple[Tensor, Tensor]:
        """N steps in which the second half step does not see the first."""
        beta = run.settings.number
        y = z = start
        for n in range(self.num_steps(run.settings)):
            value = self.discover(run, z) if n == 0 else self.evaluate(run, z)
            y, z = self.half(y, value, beta), self.half(z, self.evaluate(run, y), beta)
            self.after_step(run, y, z)
        return y, z


FAULTS = (
    ParameterTermAtYDropped,
    ParameterTermAtZDropped,
    CouplingDropped,
    LinearisedAtNextZ,
    LinearisedAtPreviousY,
    ParameterBetaMissing,
    DecayMissingOnY,
    DecayMissingOnZ,
    JacobianNotTransposed,
    FirstStepDropped,
    LastStepsOnly,
    ImplicitForExact,
    RelativeErrorInOneTerm,
    ImplicitAdjointUnsolved,
    JacobiUpdate,
)
