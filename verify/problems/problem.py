"""An equilibrium problem with a known answer: stated once, evaluated by torch and by the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from verify.problems.operations import Operations
from verify.problems.scope import Scope
from verify.problems.splitting import SplitFunction, Splitting
from verify.problems.torch_operations import TorchOperations


Statement = Callable[[Operations, Any, Mapping[str, Any]], Any]
Float64Array = NDArray[np.float64]
ContractionKind = Literal["exact", "bound", "none"]
Spectrum = Literal["real", "imaginary", "general", "defective", "nonlinear"]

_TORCH = TorchOperations()
_BFLOAT16_BITS = 8


@dataclass(frozen=True, eq=False)
class Problem:
    """The equilibrium z = f(z, args), where it starts, what its gradient is taken of, and what is known about it.

    The loss is L = <cotangent_z, z1> + <cotangent_y, y1>; its gradient's leaves are called "z0" and "args.NAME".
    Every number of z0, args and the cotangents is representable in bfloat16, so all dtypes share one problem.
    Problems compare and hash by identity; `dataclasses.replace` makes a variant (another z0, another cotangent).

    Args:
        name: short stable name, such as "affine-real".
        title: one line for a report.
        source: where the problem, its data and its answer come from.
        statement: f as statement(ops, z, args) in terms of `Operations`.
        z0: start, float64, batch first (B, ...).
        args: every other array that f reads.
        cotangent_z: dL/dz1, shape of z0.
        cotangent_y: dL/dy1, shape of z0.
        contraction_constant: k with |f(z) - f(w)| <= k |z - w| (in `norm`, on `domain`), or None.
        contraction_kind: "exact" if no smaller k will do, "bound" if k is proved but may be generous, "none".
        spectrum: of df/dz at the fixed point where f is affine, else "nonlinear".
        norm: the norm of the contraction constant, "2" (Euclidean, per sample) or "sup".
        domain: where the contraction constant holds, in words; empty for everywhere.
        eigenvalues: of df/dz for one sample, complex128, where known exactly.
        closed_form: digits -> the fixed point as an object array of mpf, from a closed form or from mpmath's solver.
        answer_source: what `closed_form` uses.
        oracle_float64: the fixed point by a routine that we did not write (scipy, numpy), in float64.
        oracle_source: the name of that routine.
        splitting: the parts on which splitting solvers iterate, where f has them.
        scope: what profiles measure of it.

    Raises:
        ValueError: an array of another dtype or shape, a number that bfloat16 does not hold, a contraction constant
            that is negative or does not go with its kind.
    """

    name: str
    title: str
    source: str
    statement: Statement
    z0: Float64Array
    args: dict[str, Float64Array]
    cotangent_z: Float64Array
    cotangent_y: Float64Array
    contraction_constant: float | None
    contraction_kind: ContractionKind
    spectrum: Spectrum
    norm: Literal["2", "sup"] = "2"
    domain: str = ""
    eigenvalues: NDArray[np.complex128] | None = None
    closed_form: Callable[[int], NDArray[Any]] | None = None
    answer_source: str = ""
    oracle_float64: Callable[[], Float64Array] | None = None
    oracle_source: str = ""
    splitting: Splitting | None = None
    scope: Scope = field(default_factory=Scope)

    def __post_init__(self) -> None:
        arrays = {"z0": self.z0, "cotangent_z": self.cotangent_z, "cotangent_y": self.cotangent_y}
        arrays |= {f"args.{name}": value for name, value in self.args.items()}
        for name, value in arrays.items():
            if value.dtype != np.float64:
                raise ValueError(f"{name} of problem {self.name} is {value.dtype}; give it as float64")
            if not np.array_equal(value, to_bfloat16(value)):
                raise ValueError(f"{name} of problem {self.name} has numbers that bfloat16 does not hold; round them")
        for name in ("cotangent_z", "cotangent_y"):
            if arrays[name].shape != self.z0.shape:
                raise ValueError(f"{name} of problem {self.name} has shape {arrays[name].shape}, z0 {self.z0.shape}")
        if (self.contraction_constant is None) != (self.contraction_kind == "none"):
            raise ValueError(
                f"problem {self.name} has contraction constant {self.contraction_constant} of kind "
                f"{self.contraction_kind!r}; 'none' goes with None and nothing else"
            )
        if self.contraction_constant is not None and not self.contraction_constant >= 0:
            raise ValueError(f"contraction constant {self.contraction_constant} of problem {self.name} is negative")

    def answer(self, digits: int) -> NDArray[Any] | None:
        """The fixed point to `digits` digits as an object array of mpf, or None where there is no closed form."""
        return None if self.closed_form is None else self.closed_form(digits)

    def oracle(self) -> Float64Array | None:
        """The fixed point by a float64 routine that we did not write, or None."""
        return None if self.oracle_float64 is None else self.oracle_float64()

    @property
    def contracts(self) -> bool:
        """Whether no contraction constant of 1 or more is known of it: its fixed point attracts."""
        return self.contraction_constant is None or self.contraction_constant < 1

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the gradient's leaves: "z0", then "args.NAME"."""
        return ("z0", *(f"args.{name}" for name in self.args))

    def function(self, z: Tensor, args: Mapping[str, Tensor]) -> Tensor:
        """The map f(z, args) in torch."""
        return cast(Tensor, self.statement(_TORCH, z, args))

    @property
    def split_function(self) -> Callable[..., Tensor]:
        """`function`, with its splitting where there is one."""
        return self.function if self.splitting is None else SplitFunction(self.function, self.splitting)

    def inputs(
        self, dtype: torch.dtype, device: torch.device | str = "cpu", *, requires_grad: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(z0, args) as fresh leaf tensors of the dtype."""
        args = {name: _tensor(value, dtype, device, requires_grad) for name, value in self.args.items()}
        return _tensor(self.z0, dtype, device, requires_grad), args

    def cotangents(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """(cotangent_z, cotangent_y) as tensors of the dtype."""
        return _tensor(self.cotangent_z, dtype, device, False), _tensor(self.cotangent_y, dtype, device, False)

    def module(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> ProblemModule:
        """The same f as a module whose parameters are the args; `module(z)` and `module(z, ())` both evaluate it."""
        return ProblemModule(self, dtype, device)

    def closure(
        self, dtype: torch.dtype, device: torch.device | str = "cpu", *, requires_grad: bool = True
    ) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
        """(f, captured): a plain function f(z, args=()) that captures its args as tensors, and those tensors."""
        _, captured = self.inputs(dtype, device, requires_grad=requires_grad)

        def function(z: Tensor, args: Any = ()) -> Tensor:
            del args
            return self.function(z, captured)

        return function, captured


class ProblemModule(nn.Module):
    """A problem's f with its args as parameters, under their own names.

    Args:
        problem: the problem.
        dtype: dtype of the parameters.
        device: where they live.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self._problem = problem
        for name, value in problem.args.items():
            self.register_parameter(name, nn.Parameter(_tensor(value, dtype, device, False)))

    def forward(self, z: Tensor, args: Any = ()) -> Tensor:
        """The map f(z) with the parameters as args."""
        del args
        return self._problem.function(z, dict(self.named_parameters()))


def to_bfloat16(values: NDArray[Any]) -> Float64Array:
    """The nearest numbers of 8 significant bits (ties to even), as float64."""
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    return np.ldexp(np.round(np.ldexp(mantissa, _BFLOAT16_BITS)), exponent - _BFLOAT16_BITS)


def _tensor(value: Float64Array, dtype: torch.dtype, device: torch.device | str, requires_grad: bool) -> Tensor:
    return torch.tensor(value.tolist(), dtype=dtype, device=device, requires_grad=requires_grad)
