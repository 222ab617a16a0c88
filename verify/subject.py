"""What is verified: anything that solves z = f(z) and differentiates it, ours or another library's.

A subject is an object with `name`, `solve` and, where it claims to undo its steps, `reconstruct`; `claims` says what it
does, and is what it is judged by (`verify.claims`). `load_subject("revdeq")` gives this distribution's own,
`load_subject("plain-loop")` one that comes with it (`verify.subjects`), and `load_subject("package.module:attribute")`
another; the attribute is `subject` where none is named.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

import revdeq
from revdeq._narrowing import narrow
from revdeq.arithmetic.base import LeafState
from revdeq.solver.reversible import Coupled, Reversible, ReversibleIteration
from verify.claims import Adjoint as Adjoint, ClaimsError, claims_of
from verify.methods import Betas, anderson, broyden
from verify.subjects import SUBJECTS
from verify.users_module import import_users_module


ADJOINT_STEPS = 10_000
"""Steps that the adjoint equation may take: the slowest problem of the zoo needs some 2,000."""

CHECKPOINT_STEPS = 3
"""Steps between the states that a checkpointed adjoint keeps."""

PHANTOM = (4, 0.75)
"""Number and relaxation parameter of the steps that a phantom gradient differentiates."""

Function = Callable[[Tensor, Any], Tensor]


class SubjectError(ValueError):
    """A subject that cannot be loaded; the message says which, why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a subject is asked to solve.

    Args:
        beta: relaxation parameter, or the step size of a splitting; of the reversible solver also two numbers a step,
            those of y and of z, or "auto" or "adaptive" where the subject chooses and says what in `Solved.beta`.
        num_steps: number of steps N, exactly; with `stop` the greatest.
        adjoint: "reversible" reverses the iteration whatever the health of the gradient, "default" is what a user gets
            who asks for nothing else, "unrolled" and "implicit" are what they say. "checkpointed" keeps the state every
            `CHECKPOINT_STEPS` steps and takes the others again; "implicit-gmres" solves the adjoint equation by GMRES;
            "phantom" differentiates `PHANTOM` relaxed steps from z1 as a constant.
        state_dtype: dtype of y and z, z0's or a wider one.
        tolerance: relative tolerance of the implicit adjoint's linear solve.
        arithmetic: "floating", or "bitwise" for states that are undone to the bit at any depth; then state_dtype says
            nothing, and beta is 1 - 1/m or 1 + 1/m.
        solver: "reversible", or the `Method.solver` of one of `verify.methods`, whose module defines its iterates. To a
            splitting solver f offers `split(args, step_size)`, see `verify.problems.splitting.SplitFunction`.
        stop: None for exactly N steps; else each sample ends by itself, after the fewest steps that leave
            ||f(z) - z|| <= stop ||f(z)|| (2-norms over the sample).
    """

    beta: float | Betas | Literal["auto", "adaptive"]
    num_steps: int
    adjoint: Adjoint
    state_dtype: torch.dtype
    tolerance: float = 2.0**-40
    arithmetic: Literal["floating", "bitwise"] = "floating"
    solver: str = "reversible"
    stop: float | None = None

    @property
    def number(self) -> float:
        """Beta where it is one number.

        Raises:
            TypeError: it is none.
        """
        if isinstance(self.beta, str | tuple):
            raise TypeError(f"beta is {self.beta!r}: one number is needed here.")
        return self.beta


@dataclass(frozen=True)
class Solved:
    """What a solve returned.

    Args:
        z1: state z_N, differentiable.
        y1: coupled state y_N, differentiable; z1 again where the solver has none.
        num_steps: number of steps that the subject reports, one value, or one per sample.
        beta: the relaxation parameters that the subject chose, where that was left to it: a number, or a tensor of
            shape (samples, steps); else None.
    """

    z1: Tensor
    y1: Tensor
    num_steps: Tensor
    beta: float | Tensor | None = None


@runtime_checkable
class Subject(Protocol):
    """The interface of what is verified."""

    @property
    def name(self) -> str:
        """How results name it."""
        ...

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """Solve z = f(z, args) from z0 as the settings say, differentiable with respect to all that f reads.

        Raises:
            Exception: of any kind, where the settings are refused or the function fails.
        """
        ...

    def reconstruct(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> list[tuple[Tensor, Tensor]]:
        """Iterate forward N steps, then undo them one by one.

        Returns:
            The rebuilt states (y_n, z_n) for n = N, N - 1, ..., 0, in the state dtype; the first is the forward result.
        """
        ...


class RevdeqSubject:
    """This distribution's own solver, through its public interface."""

    name = "revdeq"

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """As `Subject.solve`."""
        solution = revdeq.solve(
            function,
            z0,
            args,
            solver=_solver(settings),
            adjoint=_adjoint(settings),
            max_steps=settings.num_steps,
            rtol=settings.stop,
            atol=None if settings.stop is None else 0.0,
        )
        chosen = None if isinstance(solution.beta, tuple) else solution.beta
        y1 = solution.z1 if solution.y1 is None else solution.y1
        return Solved(solution.z1, y1, solution.num_steps, chosen)

    def reconstruct(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> list[tuple[Tensor, Tensor]]:
        """As `Subject.reconstruct`: `Reversible.step`, undone by `undo_z` and `undo_y`."""
        solver = _reversible(settings).bound_to(None, settings.num_steps).recording()

        def evaluate(state: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (function(narrow(state, z0.dtype), args),)

        with torch.no_grad():
            state = solver.init((z0,))
            for n in range(settings.num_steps):
                state = solver.step(lambda leaves: evaluate(leaves[0]), state, evaluate(_value(solver, state.z)), n)
            lost = [entry for tape in state.tape for entry in tape.entries()]
            rebuilt = [state]
            for n in reversed(range(settings.num_steps)):
                lost_y, lost_z = lost[2 * n : 2 * n + 2] or (None, None)
                z = solver.undo_z(state.z, evaluate(_value(solver, state.y)), lost_z)
                # Integers stand for a rounded z0, but the first evaluation was at z0 itself.
                at = z0 if n == 0 and solver.repeats else _value(solver, z)
                state = Coupled(solver.undo_y(state.y, evaluate(at), lost_y), z)
                rebuilt.append(state)
        return [(_value(solver, state.y), _value(solver, state.z)) for state in rebuilt]


def load_subject(name: str) -> Subject:
    """The subject called `name`.

    Args:
        name: "revdeq", one of `verify.subjects.SUBJECTS`, or MODULE or MODULE:ATTRIBUTE (a subject, or a function that
            makes one).

    Raises:
        SubjectError: if the module or the attribute is not there, a library is missing, it is not a subject, or it
            claims nothing that could be judged.
    """
    if name == "revdeq":
        return RevdeqSubject()
    if name in SUBJECTS:
        return _adapter(name)
    module_name, _, attribute = name.partition(":")
    attribute = attribute or "subject"
    try:
        module = import_users_module(module_name)
    except ImportError as error:
        raise SubjectError(
            f"subject {name!r} cannot be imported ({error}): give revdeq, {', '.join(SUBJECTS)}, or MODULE:ATTRIBUTE "
            "on the Python path."
        ) from error
    if not hasattr(module, attribute):
        raise SubjectError(f"module {module_name} has no {attribute!r}: define it there, or give MODULE:ATTRIBUTE.")
    candidate: Any = getattr(module, attribute)
    try:
        if isinstance(candidate, type) or (callable(candidate) and not _is_subject(candidate)):
            candidate = candidate()
        if _is_subject(candidate):
            return candidate
    except ClaimsError as error:
        raise SubjectError(f"{module_name}:{attribute}: {error}") from error
    raise SubjectError(
        f"{module_name}:{attribute} is a {type(candidate).__name__} without name, solve and reconstruct: give an "
        "object that has the three (see verify.subject.Subject), or the first two and claims without 'reversible'."
    )


def _is_subject(candidate: Any) -> TypeGuard[Subject]:
    needed = ("name", "solve", "reconstruct") if claims_of(candidate).reversible else ("name", "solve")
    return all(hasattr(candidate, attribute) for attribute in needed)


def _adapter(name: str) -> Subject:
    adapter = SUBJECTS[name]
    try:
        return importlib.import_module(adapter.module).subject
    except ModuleNotFoundError as error:
        if error.name != adapter.library:
            raise
        raise SubjectError(
            f"subject {name!r} needs the library {adapter.library}, which is not installed here: "
            f"pip install 'revdeq[{adapter.library}]'."
        ) from error


def _adjoint(settings: Settings) -> revdeq.Adjoint:
    implicit = partial(revdeq.ImplicitAdjoint, rtol=settings.tolerance, atol=0.0, max_steps=ADJOINT_STEPS)
    makers: dict[Adjoint, Callable[[], revdeq.Adjoint]] = {
        "reversible": lambda: revdeq.ReversibleAdjoint(verify=False),
        "default": revdeq.ReversibleAdjoint,
        "unrolled": revdeq.UnrolledAdjoint,
        "checkpointed": lambda: revdeq.CheckpointedAdjoint(CHECKPOINT_STEPS),
        "implicit": implicit,
        "implicit-gmres": lambda: implicit(solver=revdeq.GMRES()),
        "phantom": lambda: revdeq.PhantomAdjoint(*PHANTOM),
    }
    return makers[settings.adjoint]()


def _solver(settings: Settings) -> revdeq.Solver:
    makers: dict[str, Callable[[float], revdeq.Solver]] = {
        "relaxed": revdeq.Relaxed,
        "anderson": lambda beta: revdeq.Anderson(beta, history=anderson.HISTORY, regularisation=anderson.RIDGE),
        "broyden": lambda beta: revdeq.Broyden(beta, history=broyden.HISTORY),
        "forward-backward": revdeq.ForwardBackward,
        "peaceman-rachford": revdeq.PeacemanRachford,
    }
    return _reversible(settings) if settings.solver == "reversible" else makers[settings.solver](settings.number)


def _reversible(settings: Settings) -> Reversible:
    if settings.arithmetic == "bitwise":
        return Reversible(settings.beta, arithmetic="bitwise")
    return Reversible(settings.beta, state_dtype=settings.state_dtype)


def _value(solver: ReversibleIteration, states: tuple[LeafState, ...]) -> torch.Tensor:
    return solver.half_steps.values(states)[0]
