"""Faults in the methods: one that is not itself, betas that are not those said, ends and adjoints that are others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor

from verify.methods import METHODS, Map, State
from verify.planted.base import Honest
from verify.planted.by_method import ByMethod, Iteration
from verify.problems.torch_operations import TorchOperations
from verify.subject import Function, Settings, Solved


class _Another(ByMethod):
    """Solves by another solver than it is asked for."""

    taken = "relaxed"

    def states(self, solver: str, at: Map, z0: Tensor, betas: Any) -> Iterator[State]:
        return METHODS[self.taken].states(at, z0, betas)


class _ByAnderson(_Another):
    taken = "anderson"


class AndersonUnmixed(Honest):
    """Takes relaxed steps."""

    name = "anderson-unmixed"
    description = "Anderson's acceleration takes relaxed steps and mixes nothing"
    methods = ("anderson",)
    by_method = _Another()


class BroydenByAnderson(Honest):
    """Solves by Anderson's method."""

    name = "broyden-by-anderson"
    description = "Broyden's method is Anderson's, which finds the same fixed point"
    methods = ("broyden",)
    by_method = _ByAnderson()


class _Averaged(ByMethod):
    def states(self, solver: str, at: Map, z0: Tensor, betas: Any) -> Iterator[State]:
        parts, u, z = at.parts(betas(0)[0]), z0, z0
        yield State(z, z)
        for _ in count():
            half = 2.0 * z - u
            u = (u + 2.0 * parts.resolvent(half) - half) / 2
            z = parts.prox(u)
            yield State(z, z)


class PeacemanRachfordAveraged(Honest):
    """Averages the reflections with the state before."""

    name = "peaceman-rachford-averaged"
    description = "Peaceman-Rachford splitting is Douglas-Rachford's, which finds the same fixed point"
    methods = ("peaceman-rachford",)
    by_method = _Averaged()


class _Late(ByMethod):
    def scheduled(self, schedule: tuple[tuple[float, float], ...], step: int) -> tuple[float, float]:
        return schedule[max(step - 1, 0)]


class ScheduleLate(Honest):
    """Takes the betas of the step before."""

    name = "schedule-a-step-late"
    description = "each step of a schedule takes the betas of the step before"
    methods = ("reversible-schedule",)
    by_method = _Late()


class _Misreported(ByMethod):
    def reported(self, at: Iteration) -> float | Tensor | None:
        return torch.full((len(at.z0), at.settings.num_steps), 0.8)


class BetasMisreported(Honest):
    """Reports the first beta for all."""

    name = "betas-misreported"
    description = "adaptive betas are taken, and the first is reported for all"
    methods = ("reversible-adaptive",)
    by_method = _Misreported()


class _OfBatch(ByMethod):
    def observed(self, at: Iteration) -> Tensor:
        each = super().observed(at)
        return torch.linalg.vector_norm(each).expand_as(each)


class AdaptiveOfBatch(Honest):
    """Goes by the residual of the batch."""

    name = "adaptive-betas-of-the-batch"
    description = "adaptive betas go by the residual of the whole batch"
    methods = ("reversible-adaptive",)
    by_method = _OfBatch()


class _Differentiated(ByMethod):
    def observed(self, at: Iteration) -> Tensor:
        return at.residual(at.z)


class AdaptiveDifferentiated(Honest):
    """Differentiates the choice."""

    name = "adaptive-betas-differentiated"
    description = "the gradient goes through the choice of adaptive betas"
    methods = ("reversible-adaptive",)
    by_method = _Differentiated()


class _ByChance(ByMethod):
    def automatic(self) -> float:
        return 1.75

    def reported(self, at: Iteration) -> float | Tensor | None:
        return 1.75


class AutomaticByChance(Honest):
    """Chooses a beta without looking."""

    name = "automatic-beta-by-chance"
    description = "a beta that the subject is to choose is chosen without looking at f"
    methods = ("reversible-auto",)
    by_method = _ByChance()


class _DetachedDivision(TorchOperations):
    def divide(self, a: Any, b: Any) -> Any:
        return (a / b).detach()


class _ConstantWeights(ByMethod):
    operations = _DetachedDivision()


class MixingWeightsConstant(Honest):
    """Takes the mixing weights for constants."""

    name = "mixing-weights-constant"
    description = "the gradient of Anderson's acceleration takes its weights for constants"
    methods = ("anderson",)
    by_method = _ConstantWeights()


class _Loose(ByMethod):
    def met(self, at: Iteration, z: Tensor, stop: float) -> Tensor:
        return super().met(at, z, 16.0 * stop)


class ToleranceLoose(Honest):
    """Ends at sixteen times the tolerance."""

    name = "tolerance-taken-loosely"
    description = "a sample ends where its residual meets sixteen times the tolerance"
    methods = ("relaxed-tolerance", "anderson-tolerance")
    by_method = _Loose()


class _OnIncrement(ByMethod):
    def met(self, at: Iteration, z: Tensor, stop: float) -> Tensor:
        change = torch.linalg.vector_norm((z - at.z).double(), dim=-1, keepdim=True)
        return (change > 0) & (change <= stop * torch.linalg.vector_norm(z.double(), dim=-1, keepdim=True))


class ToleranceOnIncrement(Honest):
    """Judges the increment."""

    name = "tolerance-on-increment"
    description = "the increment of a step is judged, and not the residual"
    methods = ("relaxed-tolerance",)
    by_method = _OnIncrement()


class _OnBatch(ByMethod):
    def met(self, at: Iteration, z: Tensor, stop: float) -> Tensor:
        value = at.f(z).double()
        together = torch.linalg.vector_norm(value - z) <= stop * torch.linalg.vector_norm(value)
        return together.expand(len(z), 1)


class ToleranceOnBatch(Honest):
    """Judges the batch."""

    name = "tolerance-on-batch"
    description = "the residual of the whole batch is judged, and all samples end together"
    methods = ("relaxed-tolerance",)
    by_method = _OnBatch()


class _FirstLost(ByMethod):
    def checkpointed(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        calls = 0

        def forgetful(z: Tensor, arguments: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return function(z, arguments).detach() if calls == 1 else function(z, arguments)

        return self.run(forgetful, z0, args, settings)


class CheckpointedInPart(Honest):
    """Loses the first evaluation."""

    name = "checkpointed-in-part"
    description = "the checkpointed gradient lacks the part of the first evaluation"
    methods = ("relaxed",)
    by_method = _FirstLost()


class _Kept(ByMethod):
    def checkpointed(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        return self.run(function, z0, args, settings)


class CheckpointedKeepsGraph(Honest):
    """Keeps the graph of all steps."""

    name = "checkpointed-keeps-the-graph"
    description = "the checkpointed adjoint keeps the whole graph and takes no step again"
    methods = ("relaxed",)
    by_method = _Kept()


class _Short(ByMethod):
    def phantom_steps(self) -> int:
        return super().phantom_steps() - 1


class PhantomShort(Honest):
    """Takes a step too few."""

    name = "phantom-a-step-short"
    description = "the phantom gradient differentiates one step too few"
    methods = ("relaxed",)
    by_method = _Short()


class _Through(ByMethod):
    def constant(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        return self.run(function, z0, args, settings)


class PhantomThroughSolve(Honest):
    """Differentiates the solve too."""

    name = "phantom-through-the-solve"
    description = "the phantom gradient goes on through the state that it should take for a constant"
    methods = ("relaxed",)
    by_method = _Through()


class _OneVector(ByMethod):
    def adjoint(self, product: Callable[[Tensor], Tensor], settings: Settings, cotangent: Tensor) -> Tensor:
        if settings.adjoint != "implicit-gmres":
            return super().adjoint(product, settings, cotangent)
        image = cotangent - product(cotangent)
        return (cotangent * image).sum() / (image * image).sum() * cotangent


class GmresOfOneVector(Honest):
    """Ends GMRES after one vector."""

    name = "gmres-of-one-vector"
    description = "GMRES ends after one vector, whatever its residual"
    methods = ("relaxed-tolerance",)
    by_method = _OneVector()


FAULTS = (
    AndersonUnmixed,
    BroydenByAnderson,
    PeacemanRachfordAveraged,
    ScheduleLate,
    BetasMisreported,
    AdaptiveOfBatch,
    AdaptiveDifferentiated,
    AutomaticByChance,
    MixingWeightsConstant,
    ToleranceLoose,
    ToleranceOnIncrement,
    ToleranceOnBatch,
    CheckpointedInPart,
    CheckpointedKeepsGraph,
    PhantomShort,
    PhantomThroughSolve,
    GmresOfOneVector,
)
