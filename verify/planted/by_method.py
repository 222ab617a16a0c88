"""How the control solves by any method: its definition in torch, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from verify.methods import METHODS, Map, State
from verify.problems.operations import Operations
from verify.problems.splitting import SplitFunction
from verify.problems.torch_operations import TorchOperations
from verify.subject import PHANTOM, Function, Settings, Solved


USUAL, NEAREST, LARGEST, CAREFUL = 0.8, 2.0**-4, 1.95, 0.5
"""The beta that adaptive runs begin with and that an automatic choice may keep, and the limits of the adaptive rule."""


class Iteration:
    """One solve on its way: the map with its last values kept, and the betas that were chosen.

    Args:
        rules: how betas are chosen.
        function: the map f(z, args).
        z0: the start.
        args: what is passed to f.
        settings: how it is solved.
    """

    def __init__(self, rules: ByMethod, function: Function, z0: Tensor, args: Any, settings: Settings) -> None:
        self._rules, self._function, self.z0, self._args, self.settings = rules, function, z0, args, settings
        self._known: tuple[Tensor, Tensor] | None = None
        self.z = z0
        self.ratios: list[Tensor] = []
        self.betas: list[Tensor] = []

    def f(self, z: Tensor) -> Tensor:
        """The value at a state; that of the last one is kept, so that a residual costs no evaluation."""
        if self._known is None or self._known[0] is not z:
            self._known = z, self._function(z, self._args)
        return self._known[1]

    def residual(self, z: Tensor) -> Tensor:
        """||f(z) - z|| of each sample, shape (B, 1)."""
        return torch.linalg.vector_norm((self.f(z) - z).double(), dim=-1, keepdim=True)

    def states(self) -> Iterator[State]:
        """The states of the method, without end."""

        def parts(step_size: float) -> Any:
            return cast("SplitFunction", self._function).split(self._args, step_size)

        at = Map(self._rules.operations, self.f, parts)
        return self._rules.states(self.settings.solver, at, self.z0, self._betas)

    def _betas(self, step: int) -> tuple[Any, Any]:
        beta = self.settings.beta
        if isinstance(beta, tuple):
            return self._rules.scheduled(beta, step)
        if isinstance(beta, str):
            beta = self._rules.automatic() if beta == "auto" else self._rules.adaptive(self)
        return beta, beta


class ByMethod:
    """Each method is one term, so that a fault overrides one and nothing else."""

    operations: Operations = TorchOperations()
    """In which the methods work; f has its own."""

    def solves(self, settings: Settings) -> bool:
        """Whether the settings ask for more than the reversible iteration with one beta and its own adjoints."""
        plain = settings.adjoint in ("reversible", "default", "unrolled", "implicit")
        chosen = isinstance(settings.beta, tuple) or settings.beta in ("auto", "adaptive")
        return settings.solver != "reversible" or chosen or settings.stop is not None or not plain

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """As `verify.subject.Subject.solve`."""
        if settings.adjoint == "checkpointed":
            return self.checkpointed(function, z0, args, settings)
        if settings.adjoint == "phantom":
            return self.phantom(function, z0, args, settings)
        if settings.adjoint in ("implicit", "implicit-gmres"):
            return self.implicit(function, z0, args, settings)
        return self.run(function, z0, args, settings)

    # The iteration.

    def states(self, solver: str, at: Map, z0: Tensor, betas: Any) -> Iterator[State]:
        """The states of a solver."""
        definitions = {method.solver: method.states for method in METHODS.values()}
        return definitions[solver](at, z0, betas)

    def scheduled(self, schedule: tuple[tuple[float, float], ...], step: int) -> tuple[float, float]:
        """The betas of a step."""
        return schedule[step]

    def automatic(self) -> float:
        """The beta that is chosen where that is left to the subject."""
        return USUAL

    def adaptive(self, at: Iteration) -> Tensor:
        """The betas of the samples in the next step, shape (B, 1), by the ratios of their residuals."""
        at.ratios.append(self.observed(at))
        if len(at.ratios) == 1:
            at.betas.append(torch.full_like(at.ratios[0], USUAL))
            return at.betas[0]
        ratio, beta = at.ratios[-1] / at.ratios[-2], at.betas[-1]
        k = (ratio - 1 + beta) / (beta * ratio.sqrt())
        young = (2 / (1 + (1 - k * k).clamp(min=0).sqrt())).clamp(1 + NEAREST, LARGEST)
        risen = torch.where(ratio > (1 - beta).abs(), torch.maximum(beta, young), beta)
        at.betas.append(torch.where(ratio >= 1, beta.clamp(max=CAREFUL), risen))
        return at.betas[-1]

    def observed(self, at: Iteration) -> Tensor:
        """The residuals that betas go by."""
        return at.residual(at.z).detach()

    def run(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """Iterate with a graph, for a fixed number of steps or until each sample meets its tolerance."""
        at = Iteration(self, function, z0, args, settings)
        counts = torch.full((len(z0), 1), settings.num_steps)
        going = torch.ones_like(counts, dtype=torch.bool)
        reached = State(z0, z0)
        for n, state in enumerate(at.states()):
            reached = State(*(torch.where(going, new, old) for new, old in zip(state, reached, strict=True)))
            if settings.stop is not None:
                met = self.met(at, state.z, settings.stop) & going
                counts, going = torch.where(met, n, counts), going & ~met
            at.z = state.z
            if n == settings.num_steps or not bool(going.any()):
                break
        return Solved(reached.z, reached.y, counts.reshape(-1), self.reported(at))

    def met(self, at: Iteration, z: Tensor, stop: float) -> Tensor:
        """Whether each sample may end at a state, shape (B, 1)."""
        return at.residual(z) <= stop * torch.linalg.vector_norm(at.f(z).double(), dim=-1, keepdim=True)

    def reported(self, at: Iteration) -> float | Tensor | None:
        """What was chosen for beta."""
        return torch.cat(at.betas, dim=1) if at.betas else USUAL if at.settings.beta == "auto" else None

    # The adjoints.

    def checkpointed(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """All steps as one segment, taken again in backward."""
        return cast("Solved", checkpoint(self.run, function, z0, args, settings, use_reentrant=False))

    def constant(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """The solve without a graph."""
        with torch.no_grad():
            return self.run(function, z0, args, settings)

    def phantom(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """The gradient of relaxed steps from the state returned."""
        solved = self.constant(function, z0, args, settings)
        x, beta = solved.z1, PHANTOM[1]
        for _ in range(self.phantom_steps()):
            x = (1 - beta) * x + beta * function(x, args)
        attached = solved.z1.detach() + (x - x.detach())
        return Solved(attached, attached, solved.num_steps, solved.beta)

    def phantom_steps(self) -> int:
        """How many they are."""
        return PHANTOM[0]

    def implicit(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """The gradient of the fixed point, its adjoint equation solved as a dense system."""
        solved = self.constant(function, z0, args, settings)
        at = solved.z1.detach().requires_grad_()
        value = function(at, args)

        def product(w: Tensor) -> Tensor:
            return torch.autograd.grad(value, at, w, retain_graph=True)[0]

        attached = value - value.detach() + solved.z1
        attached.register_hook(partial(self.adjoint, product, settings))
        return Solved(attached, attached, solved.num_steps, solved.beta)

    def adjoint(self, product: Callable[[Tensor], Tensor], settings: Settings, cotangent: Tensor) -> Tensor:
        """The solution of w = cotangent + K^T w."""
        del settings
        columns = [product(unit.view_as(cotangent)).reshape(-1) for unit in torch.eye(cotangent.numel()).to(cotangent)]
        system = torch.eye(cotangent.numel()).to(cotangent) - torch.stack(columns, dim=1)
        return torch.linalg.solve(system, cotangent.reshape(-1)).view_as(cotangent)
