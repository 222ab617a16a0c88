"""N reversible steps of a user's function and their gradient: by the solver, and by a plain loop without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from revdeq import Adjoint, Reversible, solve
from revdeq._environment import graph_kernels
from revdeq._tree import Leaves
from verify.module.specimen import Specimen, state_of


WIDE = torch.float64


@dataclass(frozen=True)
class Run:
    """What N steps gave.

    Attributes:
        values: the final state by the names "z1...", and the gradient of every leaf, zeros where none arrived.
        missing: the leaves where none arrived.
    """

    values: dict[str, Tensor]
    missing: tuple[str, ...]


Wrapper = Callable[[Callable[[Leaves], Leaves]], Callable[[Leaves], Leaves]]
"""What stands between the loop and f."""


def unwrapped(f: Callable[[Leaves], Leaves]) -> Callable[[Leaves], Leaves]:
    """Nothing between the loop and f."""
    return f


def plain_steps(f: Callable[[Leaves], Leaves], z0: Leaves, beta: float, num_steps: int) -> Leaves:
    """z_N of the reversible iteration, states in float64, f in the dtype of z0.

    Args:
        f: z -> f(z).
        z0: leaves of the start.
        beta: relaxation parameter.
        num_steps: N.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917. (T0)
    """
    wide = torch.float32 if z0[0].device.type == "mps" else torch.float64

    def moved(state: list[Tensor], at: list[Tensor]) -> list[Tensor]:
        values = f(tuple(leaf.to(start.dtype) for leaf, start in zip(at, z0, strict=True)))
        return [(1 - beta) * old + beta * value.to(wide) for old, value in zip(state, values, strict=True)]

    y = z = [leaf.to(wide) for leaf in z0]
    for _ in range(num_steps):
        y = moved(y, z)
        z = moved(z, y)
    return tuple(leaf.to(start.dtype) for leaf, start in zip(z, z0, strict=True))


def run_at(specimen: Specimen, leaves: dict[str, Tensor], dtype: torch.dtype, around: Wrapper = unwrapped) -> Run:
    """The plain loop and autograd through it, at other values of all leaves.

    Args:
        specimen: the function.
        leaves: as `Specimen.leaves` returns them.
        dtype: of everything.
        around: what stands between the loop and f.
    """
    settings = specimen.settings
    with specimen.untouched(), specimen.held(leaves, dtype) as held, torch.enable_grad():
        start = tuple(leaves[name] for name in specimen.state_names)
        z1 = plain_steps(around(held.function), start, settings.beta, settings.num_steps)
        return _run(specimen, z1, leaves, _gradients(z1, specimen, held.sources))


def end_at(specimen: Specimen, leaves: dict[str, Tensor], dtype: torch.dtype) -> Leaves:
    """z_N of the plain loop at other values of all leaves, without a graph."""
    settings = specimen.settings
    with specimen.untouched(), specimen.held(leaves, dtype) as held, torch.no_grad():
        start = tuple(leaves[name] for name in specimen.state_names)
        return plain_steps(held.function, start, settings.beta, settings.num_steps)


def own_run(specimen: Specimen, around: Wrapper = unwrapped) -> Run:
    """The plain loop in the module's own dtypes and with its own tensors, as a user would write it."""
    leaves, wanted, args = _own(specimen)

    def f(z: Leaves) -> Leaves:
        specimen.put_back()
        with graph_kernels():
            return state_of(specimen.function(specimen.tree(z), args))

    with specimen.untouched(), torch.enable_grad():
        start = tuple(leaves[name] for name in specimen.state_names)
        z1 = plain_steps(around(f), start, specimen.settings.beta, specimen.settings.num_steps)
        return _run(specimen, z1, leaves, _gradients(z1, specimen, wanted))


def solver_run(specimen: Specimen, adjoint: Adjoint, *, compile: bool = False) -> Run:
    """`revdeq.solve` and its gradient, in the module's own dtypes and with its own tensors.

    Raises:
        GradientError, SolveError, TypeError, ValueError: what `solve` and its backward pass raise.
    """
    leaves, wanted, args = _own(specimen)
    with specimen.untouched(), torch.enable_grad():
        solution = solve(
            specimen.function,
            specimen.tree([leaves[name] for name in specimen.state_names]),
            args,
            solver=Reversible(specimen.settings.beta, compile=compile),
            adjoint=adjoint,
            max_steps=specimen.settings.num_steps,
        )
        z1 = state_of(solution.z1)
        return _run(specimen, z1, leaves, _gradients(z1, specimen, wanted))


def _own(specimen: Specimen) -> tuple[dict[str, Tensor], list[Tensor], Any]:
    """Copies of z0 and args, all leaves with what f captures itself, and the args to hand to f."""
    leaves = specimen.leaves()
    wanted = [specimen.captured.get(name, leaf) for name, leaf in leaves.items()]
    return leaves, wanted, specimen.args({n: leaf for n, leaf in leaves.items() if n not in specimen.captured})


def _gradients(z1: Leaves, specimen: Specimen, wanted: list[Tensor]) -> tuple[Tensor | None, ...]:
    pairs = [(leaf, c) for leaf, c in zip(z1, specimen.cotangents(), strict=True) if leaf.requires_grad]
    if not pairs:
        return (None,) * len(wanted)
    outputs, given = [leaf for leaf, _ in pairs], [c.to(leaf.dtype) for leaf, c in pairs]
    return torch.autograd.grad(outputs, wanted, given, allow_unused=True)


def _run(specimen: Specimen, z1: Leaves, leaves: dict[str, Tensor], gradients: tuple[Tensor | None, ...]) -> Run:
    values = {name.replace("z0", "z1", 1): end.detach() for name, end in zip(specimen.state_names, z1, strict=True)}
    pairs = list(zip(leaves.items(), gradients, strict=True))
    values |= {name: torch.zeros_like(leaf) if grad is None else grad for (name, leaf), grad in pairs}
    return Run(values, tuple(name for (name, _), grad in pairs if grad is None))


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
