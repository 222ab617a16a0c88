"""Affine maps f(z) = z W^T + b whose spectrum is chosen and whose entries bfloat16 holds exactly."""

from __future__ import annotations

from typing import Any, Literal

import mpmath
import numpy as np
from numpy.typing import NDArray

from verify.problems import data
from verify.problems.operations import Operations
from verify.problems.problem import Float64Array, Problem, Spectrum
from verify.problems.scope import Declared, Scope


_HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=np.float64) / 2
"""Orthogonal, symmetric, with entries +-1/2: similarity with it costs two bits of every entry and nothing else."""

_SOURCE = (
    "Constructed: W = H D H with the normalised Hadamard matrix H of order 4 (Horn, Johnson, Matrix Analysis, 2nd ed., "
    "Cambridge 2013, section 0.9.11), so that W has the spectrum and the 2-norm of D"
)


def _statement(ops: Operations, z: Any, args: Any) -> Any:
    return ops.add(ops.matmul(z, ops.transpose(args["W"])), args["b"])


def _solve(matrix: Float64Array, bias: Float64Array, digits: int) -> NDArray[Any]:
    context: Any = mpmath.MPContext()
    context.dps = digits + 10
    system = context.eye(len(matrix)) - context.matrix(matrix.tolist())
    solution = np.empty(bias.shape, dtype=object)
    for row, right in enumerate(bias):
        solution[row] = list(context.lu_solve(system, context.matrix(right.tolist())))
    return solution


def _affine(
    name: str,
    title: str,
    core: Float64Array,
    eigenvalues: list[complex],
    constant: float,
    kind: Literal["exact", "bound"],
    spectrum: Spectrum,
) -> Problem:
    matrix = _HADAMARD @ core @ _HADAMARD
    bias = data.normal(11, (2, 4))
    cotangent_z, cotangent_y = data.cotangents(13, (2, 4))
    identity = np.eye(4)
    return Problem(
        name=name,
        title=title,
        source=_SOURCE,
        statement=_statement,
        z0=data.normal(12, (2, 4)),
        args={"W": matrix, "b": bias},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=constant,
        contraction_kind=kind,
        spectrum=spectrum,
        eigenvalues=np.array(eigenvalues, dtype=np.complex128),
        closed_form=lambda digits: _solve(matrix, bias, digits),
        answer_source="mpmath.lu_solve of (I - W) z = b",
        oracle_float64=lambda: np.asarray(np.linalg.solve(identity - matrix, bias.T).T, dtype=np.float64),
        oracle_source="numpy.linalg.solve",
    )


def _blocks(*blocks: tuple[float, float]) -> Float64Array:
    """Two blocks [[p, -q], [q, p]] on the diagonal: normal, eigenvalues p +- i q, norm |p + i q|."""
    core = np.zeros((4, 4))
    for index, (p, q) in enumerate(blocks):
        core[2 * index : 2 * index + 2, 2 * index : 2 * index + 2] = [[p, -q], [q, p]]
    return core


def affine_real() -> Problem:
    """Symmetric W with eigenvalues of both signs, k = 7/8."""
    values = [0.875, -0.875, 0.5, -0.25]
    return _affine(
        "affine-real", "Affine map, real spectrum of both signs", np.diag(values), list(map(complex, values)), 0.875,
        "exact", "real",
    )  # fmt: skip


def affine_slow() -> Problem:
    """Symmetric W with k = 63/64, where the optimal beta pays most."""
    values = [0.984375, 0.75, -0.5, 0.25]
    return _affine(
        "affine-slow", "Affine map, real spectrum up to 63/64", np.diag(values), list(map(complex, values)), 0.984375,
        "exact", "real",
    )  # fmt: skip


def affine_imaginary() -> Problem:
    """Skew-symmetric W, k = 7/8."""
    return _affine(
        "affine-imaginary", "Affine map, imaginary spectrum", _blocks((0, 0.875), (0, 0.5)),
        [0.875j, -0.875j, 0.5j, -0.5j], 0.875, "exact", "imaginary",
    )  # fmt: skip


def affine_rotation() -> Problem:
    """Skew-symmetric W with k = 5/4: no contraction, yet the reversible iteration converges for beta <= 1 (T4)."""
    return _affine(
        "affine-rotation", "Affine map, imaginary spectrum up to 5/4 i: no contraction", _blocks((0, 1.25), (0, 0.5)),
        [1.25j, -1.25j, 0.5j, -0.5j], 1.25, "exact", "imaginary",
    )  # fmt: skip


def affine_general() -> Problem:
    """Normal W with complex eigenvalues 3/8 +- 1/2 i and -9/16 +- 3/4 i, k = 15/16."""
    return _affine(
        "affine-general", "Affine map, complex spectrum of a normal matrix", _blocks((0.375, 0.5), (-0.5625, 0.75)),
        [0.375 + 0.5j, 0.375 - 0.5j, -0.5625 + 0.75j, -0.5625 - 0.75j], 0.9375, "exact", "general",
    )  # fmt: skip


def affine_defective() -> Problem:
    """One Jordan block of order 4 with eigenvalue 1/2 and off-diagonal 1/4: |W| <= 1/2 + 1/4."""
    core = 0.5 * np.eye(4) + 0.25 * np.eye(4, k=1)
    return _affine(
        "affine-defective", "Affine map, one Jordan block", core, [0.5 + 0j] * 4, 0.75, "bound", "defective"
    )  # fmt: skip


def affine_expanding() -> Problem:
    """Symmetric W with the eigenvalue -5/4: divergent for every beta (T5); N-step gradient and fixed point exist."""
    values = [-1.25, 0.5, -0.5, 0.25]
    return _affine(
        "affine-expanding", "Affine map with eigenvalue -5/4: divergent", np.diag(values), list(map(complex, values)),
        1.25, "exact", "real",
    )  # fmt: skip


PROBLEMS: Declared = {
    "affine-real": (affine_real, Scope(betas=(1.25,), targets=True, bitwise=True)),
    "affine-imaginary": (affine_imaginary, Scope(betas=(0.75,))),
    "affine-general": (affine_general, Scope(bitwise=True)),
    "affine-defective": (affine_defective, Scope(straight=False, bitwise=True)),
    "affine-slow": (
        affine_slow,
        Scope(
            quick=False,
            correlated={
                ("bfloat16", 16): "the roundings of its steps share their sign and add up, where the error model takes "
                "them to be independent: at beta 1.2 to more than three times as much",
            },
        ),
    ),
    "affine-rotation": (affine_rotation, Scope(quick=False, straight=False)),
    "affine-expanding": (affine_expanding, Scope(quick=False, straight=False)),
}
