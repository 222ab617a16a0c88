"""A trial: one case with its subject, its problem and its references, and what has been observed of it so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.case import Case
from verify.claims import same_gradient
from verify.methods import METHODS
from verify.problems.problem import Problem
from verify.rounding.scale import Differentiation, RoundingScale
from verify.subject import Adjoint, Settings
from verify.trial.bench import Bench
from verify.trial.observation import Binding, Observation, observe, same_bits
from verify.trial.references import References


STOPS = {"float64": 2.0**-20, "float32": 2.0**-10}
"""Relative tolerance at which solves of a method end: less than half of the digits, so that rounding moves no count."""


@dataclass
class Trial(Bench):
    """What a check of a problem is given. Observations are made once and kept.

    Args:
        case: as in `Bench`; so are subject and options.
        problem: the equilibrium problem of the case.
        references: where expected values come from.
    """

    problem: Problem
    references: References = field(default_factory=References)
    _observed: dict[tuple[Settings, Binding], Observation] = field(
        default_factory=dict[tuple[Settings, Binding], Observation]
    )

    def settings(
        self,
        adjoint: Adjoint,
        num_steps: int | None = None,
        tolerance: float | None = None,
        stop: float | None = None,
    ) -> Settings:
        """How the subject is asked to solve this case."""
        case = self.case
        adjoint = self.claims.stand_in(adjoint)
        method = METHODS.get(case.solver)
        count = case.num_steps if num_steps is None else num_steps
        plain = Settings(
            beta=case.beta,
            num_steps=count,
            adjoint=adjoint,
            state_dtype=case.torch_state_dtype,
            tolerance=default_tolerance(case) if tolerance is None else tolerance,
            arithmetic=case.arithmetic,
        )
        if method is None:
            return plain
        end = (STOPS[case.dtype] if stop is None else stop) if method.to_tolerance else None
        return replace(plain, beta=method.beta(case.beta, count), solver=method.solver, stop=end)

    def asked(self, adjoints: Sequence[Adjoint]) -> list[Adjoint]:
        """Those of some adjoints whose gradient the subject claims, be it by another adjoint."""
        own = self.claims
        return [name for name in adjoints if name in own.adjoints or same_gradient(name, own.stand_in(name))]

    def observe(
        self,
        adjoint: Adjoint,
        binding: Binding = "args",
        num_steps: int | None = None,
        stop: float | None = None,
    ) -> Observation:
        """One solve and one backward pass of the case.

        Raises:
            Exception: whatever the subject raises.
        """
        settings = self.settings(adjoint, num_steps, stop=stop)
        key = (settings, binding)
        if key not in self._observed:
            self._observed[key] = observe(
                self.subject, self.problem, settings, self.case.torch_dtype, self.case.device, binding
            )
        return self._observed[key]

    def scale(self, differentiation: Differentiation = "reversible") -> RoundingScale:
        """What rounding alone does to this case (M0).

        Where the states are wider than f, a rebuilt state that is off by delta meets f as the very number of the
        forward pass, unless a rounding boundary of f's dtype lies between the two. Then f moves by a whole rounding of
        its own, and reversal amplifies that: a slip. It is rare on random numbers and not so rare on round ones (beta
        19/20 and a start of few bits make ties), so it is looked for, and the scale where it happened is that of
        states as narrow as f.

        Integer states are undone to the bit, so their reversal rounds no more than stored states do, and a subject that
        does not claim to undo its steps stores them.
        """
        case = self.case
        if case.arithmetic == "bitwise" or not self.claims.reversible:
            return self._rounding_scale("unrolled", case.state_unit_roundoff)
        scale = self._rounding_scale(differentiation, case.state_unit_roundoff)
        if case.state_unit_roundoff == case.unit_roundoff or differentiation == "unrolled" or not self.slipped():
            return scale
        slipped = self._rounding_scale(differentiation, case.unit_roundoff)
        return replace(
            scale,
            reconstruction=_hypot(scale.reconstruction, slipped.reconstruction),
            round_trip=_hypot(scale.round_trip, slipped.round_trip),
            gradient={leaf: math.hypot(value, slipped.gradient[leaf]) for leaf, value in scale.gradient.items()},
        )

    def slipped(self) -> bool:
        """Whether backward evaluated f at a state that is not, bit for bit, one of the forward pass."""
        seen = self.observe("reversible")
        if len(seen.backward_states) != len(seen.forward_states):
            return True
        pairs = zip(seen.forward_states, reversed(seen.backward_states), strict=True)
        return not all(same_bits(forward, backward) for forward, backward in pairs)

    def _rounding_scale(self, differentiation: Differentiation, unit_roundoff_state: float) -> RoundingScale:
        case = self.case
        return self.references.rounding_scale(
            self.problem,
            case.beta,
            case.num_steps,
            differentiation,
            unit_roundoff_state=unit_roundoff_state,
            # Integer states of a float64 function are the coarser of the two.
            unit_roundoff_function=max(case.unit_roundoff, unit_roundoff_state),
            accumulate_roundoff=case.accumulate_roundoff,
        )


def cost(observation: Observation) -> dict[str, Any]:
    """The cost columns of a row."""
    return {
        "evaluations": observation.evaluations,
        "vjps": observation.vjps,
        "saved_bytes": observation.saved_bytes,
        "seconds": observation.seconds,
    }


def default_tolerance(case: Case) -> float:
    """Relative tolerance of an implicit adjoint: 2^13 roundings, so that the solve ends and rounding does not count."""
    return 2.0**13 * case.unit_roundoff


def to_numpy(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A tensor as a float64 array, exactly."""
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())


def _hypot(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(math.hypot(one, other) for one, other in zip(left, right, strict=True))
