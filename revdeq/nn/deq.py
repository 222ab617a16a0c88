"""The layer that solves z = f(z, x)."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import nn
from torch._C._functorch import peek_interpreter_stack
from torch._subclasses.fake_tensor import FakeTensor

from revdeq._environment import autocasting
from revdeq._residual import Stopping
from revdeq._solution import Solution
from revdeq._solve import natural_adjoint, natural_steps, solve
from revdeq._tree import Tree, flatten
from revdeq.adjoint import Adjoint, ImplicitAdjoint
from revdeq.function.border import BatchDims, validated_batch_dims
from revdeq.function.extras import Extras, HasAux
from revdeq.nn.monotone import Monotone
from revdeq.solver import GMRES, PeacemanRachford, Reversible, Solver


_LEAST_TOLERANCE = 1e-5


class DEQ(nn.Module):
    """A deep equilibrium layer: x -> z with z = function(z, x), found by a solver and differentiated by an adjoint.

    Calling it returns z; `solve` returns the whole `Solution` (steps, residual, result, health).

    The state dict holds, beside the parameters, what the layer solves with (a uint8 tensor, so that every tensor format
    can store it). Loading one from a layer with another solver, number of steps or tolerance warns and says both: the
    weights were trained for the others. State dicts without it load as before.

    Args:
        function: callable of (z, args) that returns the next z; its parameters are those of the layer if it is a
            module. A method `start(args)`, where it has one, gives the start state.
        solver: how to iterate; None for `Reversible(0.5)`.
        adjoint: how to differentiate; None for `ReversibleAdjoint()` with `Reversible`, else `ImplicitAdjoint()`.
        max_steps: number of steps, or the greatest number where tolerances are given; an int >= 0; None for 8, or 100
            with tolerances.
        rtol: relative tolerance, dimensionless, or None; "auto" for 1e-5, or eps^(3/4), three quarters of the digits,
            where that is greater for the dtype that function computes in (that of the start state, or of autocast).
        atol: absolute tolerance in the unit of z, or None; both or neither.
        throw: whether a failed solve raises `SolveError`.
        batch_dims: see `revdeq.solve`.
        has_aux: see `revdeq.solve`; then calling the layer returns (z, aux).
        with_step: see `revdeq.solve`; function is called with (z, args, step) then.
        name: what `Health.layer` says; None for the class of function.

    Attributes:
        last: the last solution, without its graph, whose `health` the backward pass fills in; None before the first
            call, and inside torch.func transforms and exports, whose tensors must not leave them. It holds the final
            state and args until the next call; set it to None to let go of them.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        Bai, Kolter, Koltun, Deep Equilibrium Models, arXiv 1909.01377.
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917 (beta 0.5 and few steps).
    """

    last: Solution[Any] | None

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        max_steps: int | None = None,
        rtol: float | Literal["auto"] | None = None,
        atol: float | None = None,
        throw: bool = True,
        batch_dims: BatchDims | None = None,
        has_aux: HasAux | None = None,
        with_step: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(
                f"function is a {type(function).__name__}; it must be callable as function(z, args), "
                "such as an nn.Module."
            )
        number = _LEAST_TOLERANCE if rtol == "auto" else rtol
        max_steps = natural_steps(max_steps, number, atol)
        Stopping(max_steps, number, atol)  # validates all three
        if solver is not None and not isinstance(solver, Solver):
            raise TypeError(f"solver is {solver!r}; it must be a solver such as Reversible(0.5), or None.")
        if adjoint is not None and not isinstance(adjoint, Adjoint):
            raise TypeError(f"adjoint is {adjoint!r}; it must be an adjoint such as ReversibleAdjoint(), or None.")
        if not isinstance(throw, bool):
            raise TypeError(f"throw is {throw!r}; it must be True or False.")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name is {name!r}; it must be a string such as 'encoder', or None.")
        self.function = function
        self.solver: Solver = Reversible(0.5) if solver is None else solver
        self.adjoint: Adjoint = natural_adjoint(self.solver) if adjoint is None else adjoint
        self.max_steps, self.atol, self.throw = max_steps, atol, throw
        self.rtol: float | Literal["auto"] | None = rtol
        self.batch_dims: BatchDims | None = validated_batch_dims(batch_dims)
        Extras(has_aux, with_step, self.solver.evaluations_per_step)  # validates both
        self.has_aux: HasAux | None = has_aux
        self.with_step = with_step
        self.name = type(function).__name__ if name is None else name
        self.last = None

    @property
    def settings(self) -> dict[str, str]:
        """What the layer solves with, in words; how it differentiates, and whether it compiles, is not part of it."""
        solver = replace(self.solver, compile=False) if isinstance(self.solver, Reversible) else self.solver
        named = {"max_steps": self.max_steps, "rtol": self.rtol, "atol": self.atol, "batch_dims": self.batch_dims}
        return {"solver": repr(solver), **{key: str(value) for key, value in named.items()}}

    def get_extra_state(self) -> torch.Tensor:
        """Return the settings as the bytes of their JSON, a uint8 tensor."""
        return torch.tensor(list(json.dumps(self.settings).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Warn where the settings of a state dict differ from those of this layer.

        Args:
            state: what `get_extra_state` returned.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(state, torch.Tensor) and (state.is_meta or isinstance(state, FakeTensor)):
            return  # it has no data
        try:
            saved: dict[str, str] = json.loads(bytes(state.tolist()))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the extra state of layer {self.name} holds no solver settings; remove the entry that ends with "
                "'_extra_state' from the state dict, or load one that this layer made."
            ) from error
        ours = self.settings
        differing = [key for key in ours if saved.get(key, ours[key]) != ours[key]]
        if differing:
            theirs, here = (", ".join(f"{key}={said[key]}" for key in differing) for said in (saved, ours))
            warnings.warn(
                f"the state dict of layer {self.name} comes from one with {theirs}, and is loaded into one with "
                f"{here}: its weights were trained for the former, so make the layer with it unless the change is "
                "meant.",
                UserWarning,
                stacklevel=2,
            )

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        given = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(*given)
        key = f"{prefix}_extra_state"
        if key in missing_keys:  # saved before layers had it
            missing_keys.remove(key)

    def extra_repr(self) -> str:
        """Return how the layer solves and differentiates."""
        said = f"solver={self.solver!r}, adjoint={self.adjoint!r}, max_steps={self.max_steps}"
        if self.rtol is not None:
            said += f", rtol={self.rtol}, atol={self.atol}"
        if not self.throw:
            said += ", throw=False"
        for key in ("batch_dims", "has_aux"):
            if getattr(self, key) is not None:
                said += f", {key}={getattr(self, key)!r}"
        return f"{said}, with_step=True" if self.with_step else said

    def solve(
        self, args: Tree, z0: Tree | None = None, *, y0: Tree | None = None, save_at: Sequence[int] = ()
    ) -> Solution[Any]:
        """Return the solution for the input `args`.

        Args:
            args: the input x, handed to function.
            z0: start state; None for `function.start(args)` where there is one, else zeros shaped like args.
            y0: the second state at the start, see `revdeq.solve`; None for z0.
            save_at: steps whose states are wanted too, see `revdeq.solve`.

        Raises:
            TypeError: z0 is None, function has no `start` and args is not a tensor.
            SolveError, GradientError: see `revdeq.solve`.
        """
        return _solved(self, args, z0, y0, save_at)

    def forward(self, args: Tree, z0: Tree | None = None) -> Any:
        """Return z1 for the input `args`, or (z1, aux) with has_aux; see `solve`."""
        solution = self.solve(args, z0)
        return solution.z1 if self.has_aux is None else (solution.z1, solution.aux)

    def _relative_tolerance(self, z0: Tree) -> float | None:
        """Return rtol for a solve that starts at z0."""
        if self.rtol != "auto":
            return self.rtol
        leaves = [leaf for leaf in flatten(z0)[0] if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        dtypes = [leaf.dtype for leaf in leaves]
        dtypes += [torch.get_autocast_dtype(kind) for kind in {x.device.type for x in leaves} if autocasting(kind)]
        return max([_LEAST_TOLERANCE, *(torch.finfo(dtype).eps ** 0.75 for dtype in dtypes)])

    def _start(self, args: Tree) -> Tree:
        start = getattr(self.function, "start", None)
        if start is not None:
            return start(args)
        if not isinstance(args, torch.Tensor):
            raise TypeError(
                f"z0 is None and args is a {type(args).__name__}, so the start state is unknown; give z0, or give "
                "function a method start(args)."
            )
        return torch.zeros_like(args)


def _solve_and_keep(layer: DEQ, args: Tree, z0: Tree | None, y0: Tree | None, save_at: Sequence[int]) -> Solution[Any]:
    start = layer._start(args) if z0 is None else z0  # pyright: ignore[reportPrivateUsage]
    solution: Solution[Any] = solve(
        layer.function,
        start,
        args,
        solver=layer.solver,
        adjoint=layer.adjoint,
        max_steps=layer.max_steps,
        rtol=layer._relative_tolerance(start),  # pyright: ignore[reportPrivateUsage]
        atol=layer.atol,
        throw=layer.throw,
        batch_dims=layer.batch_dims,
        has_aux=layer.has_aux,
        with_step=layer.with_step,
        save_at=save_at,
        y0=y0,
    )
    if solution.health is not None:
        solution.health.layer = layer.name
    leaving = not peek_interpreter_stack() and not torch.compiler.is_compiling()
    layer.last = solution.detached() if leaving else None
    return solution


# Not traced: torch.compile would guard what the layer keeps.
_solved = cast(Callable[..., Solution[Any]], torch.compiler.disable(_solve_and_keep))


class MonotoneDEQ(DEQ):
    """A monotone operator equilibrium layer: one solution for every input, whatever training makes of the parameters.

    Args:
        width: components of z, an int >= 1.
        input_width: components of x, an int >= 1; None for `width`.
        margin: strong monotonicity constant of I - W, a number > 0, dimensionless.
        solver: how to iterate; None for `PeacemanRachford(1.0)`, which always converges.
        adjoint: how to differentiate; None for `ImplicitAdjoint(solver=GMRES())`, since the cell need not contract.
        max_steps: the greatest number of steps, an int >= 0.
        rtol: relative tolerance, dimensionless, or None; "auto" as in `DEQ`, which leaves float32 room for the
            conditioning of I - W.
        atol: absolute tolerance in the unit of z, or None; both or neither.
        throw: whether a failed solve raises `SolveError`.
        name: what `Health.layer` says, see `DEQ`.
        device: where the parameters live.
        dtype: their dtype, a real floating one.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591.
    """

    def __init__(
        self,
        width: int,
        input_width: int | None = None,
        *,
        margin: float = 0.5,
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        max_steps: int = 200,
        rtol: float | Literal["auto"] | None = "auto",
        atol: float | None = 0.0,
        throw: bool = True,
        name: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Monotone(width, input_width, margin=margin, device=device, dtype=dtype),
            solver=PeacemanRachford(1.0) if solver is None else solver,
            adjoint=ImplicitAdjoint(solver=GMRES()) if adjoint is None else adjoint,
            max_steps=max_steps,
            rtol=rtol,
            atol=atol,
            throw=throw,
            name=name,
        )
