"""Estimates of the Lipschitz constant and the eigenvalues of df/dz at a point, from products with its Jacobian.

NOTE [Estimates, not bounds]
What is estimated holds at one point z and is approached from inside: power iteration finds at most the largest singular
value, and Ritz values lie in the field of values. Another z, or a direction that the start vector hardly contains, may
hold more. A proof needs `revdeq certify`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq._probe import probing
from revdeq._tree import Tree, flatten, unflatten


class EstimateError(RuntimeError):
    """An estimator did not converge, or the Jacobian is not finite; the message says what to change."""


@dataclass(frozen=True)
class LipschitzEstimate:
    """Largest singular value of df/dz at one point: an estimate from below of the contraction constant.

    Attributes:
        value: sigma, the estimate.
        residual: ||J^T J v - sigma^2 v|| / sigma^2 of the unit vector v reached.
        iterations: products with J and with J^T that were spent, each.
    """

    value: float
    residual: float
    iterations: int


@dataclass(frozen=True)
class SpectrumEstimate:
    """Outer eigenvalues of df/dz at one point, as Ritz values of an Arnoldi process.

    Attributes:
        ritz_values: complex128 tensor; the outer ones have converged, the inner ones need not have.
        residual: largest ||J^T v - theta v|| / radius over the outer Ritz pairs.
        products: vector-Jacobian products that were spent.
    """

    ritz_values: Tensor
    residual: float
    products: int

    @property
    def radius(self) -> float:
        """Largest modulus."""
        return float(self.ritz_values.abs().max())

    @property
    def real_min(self) -> float:
        """Smallest real part."""
        return float(self.ritz_values.real.min())

    @property
    def real_max(self) -> float:
        """Largest real part."""
        return float(self.ritz_values.real.max())

    @property
    def imaginary_max(self) -> float:
        """Largest imaginary part."""
        return float(self.ritz_values.imag.max())


class Jacobian:
    """df/dz at one state as products with vectors, from a single evaluation of f whose graph is kept.

    Args:
        function: callable of (z, args) that returns the structure of z.
        z: state, a tensor or pytree of floating-point tensors.
        args: any pytree.
        twice: whether `times` is wanted too, which takes a second derivative.

    Attributes:
        size: number of components of z.

    Raises:
        ValueError: z is empty, or f does not return z's structure and shapes.
        EstimateError: f(z) is not finite.
    """

    def __init__(self, function: Callable[..., Tree], z: Tree, args: Tree = (), *, twice: bool = False) -> None:
        leaves, structure = flatten(z)
        self._z = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        self.size = sum(leaf.numel() for leaf in leaves)
        if self.size == 0:
            raise ValueError("z is empty, so df/dz has no eigenvalue: pass a state with at least one component")
        with probing(function, unflatten(self._z, structure), args, twice=twice) as f, torch.enable_grad():
            value, _ = flatten(f(unflatten(self._z, structure)))
        if not all(bool(torch.isfinite(v).all()) for v in value):
            raise EstimateError("function(z, args) is not finite at this z: estimate at a state where it is")
        self._value = [v for v in value if v.requires_grad]
        self._rows = [v.requires_grad for v in value]
        self._slots: list[Tensor] | None = None
        self._linear: list[Tensor] = []

    def transposed(self, vector: Tensor) -> Tensor:
        """Return J^T v.

        Args:
            vector: float64, shape (size,).
        """
        return self._checked(self._vjp(self._split(vector, self._rows), create_graph=False))

    def times(self, vector: Tensor) -> Tensor:
        """Return J v, as the derivative of u -> J^T u, which every twice differentiable operation allows (`twice`).

        Args:
            vector: float64, shape (size,).
        """
        if self._slots is None:
            self._slots = [torch.zeros_like(v, requires_grad=True) for v in self._value]
            self._linear = self._vjp(self._slots, create_graph=True)
        tracked = [(g, v) for g, v in zip(self._linear, self._split(vector, None), strict=True) if g.requires_grad]
        if not tracked:
            return torch.zeros(self.size, dtype=torch.float64, device=vector.device)
        products = torch.autograd.grad([g for g, _ in tracked], self._slots, [v for _, v in tracked], retain_graph=True)
        remaining = iter(products)
        return self._checked(
            [next(remaining) if row else torch.zeros_like(z) for row, z in zip(self._rows, self._z, strict=True)]
        )

    def start(self, seed: int) -> Tensor:
        """Return a random unit vector, float64 on the device of z."""
        generator = torch.Generator().manual_seed(seed)
        vector = torch.randn(self.size, generator=generator, dtype=torch.float64)
        return (vector / vector.norm()).to(self._z[0].device)

    def _vjp(self, cotangents: list[Tensor], *, create_graph: bool) -> list[Tensor]:
        if not self._value:
            return [torch.zeros_like(z) for z in self._z]
        # A leaf that f does not use has an exact zero derivative, which materialize_grads writes out.
        return list(
            torch.autograd.grad(
                self._value,
                self._z,
                cotangents,
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
        )

    def _split(self, vector: Tensor, rows: list[bool] | None) -> list[Tensor]:
        parts = vector.split([z.numel() for z in self._z])
        shaped = [part.view(z.shape).to(z.dtype) for part, z in zip(parts, self._z, strict=True)]
        return shaped if rows is None else [part for part, row in zip(shaped, rows, strict=True) if row]

    def _checked(self, leaves: list[Tensor]) -> Tensor:
        flat = torch.cat([leaf.detach().to(torch.float64).reshape(-1) for leaf in leaves])
        if not bool(torch.isfinite(flat).all()):
            raise EstimateError("a product with df/dz is not finite: estimate at a state where f is differentiable")
        return flat


def lipschitz_constant(
    function: Callable[[Tree, Tree], Tree],
    z: Tree,
    args: Tree = (),
    *,
    rtol: float = 1e-2,
    max_iterations: int = 500,
    seed: int = 0,
) -> LipschitzEstimate:
    """Estimate the Lipschitz constant of f near z by power iteration on J^T J; see NOTE [Estimates, not bounds].

    Args:
        function: callable of (z, args) that returns the structure of z; twice differentiable operations only.
        z: the point, a tensor or pytree of tensors.
        args: any pytree.
        rtol: relative residual to reach, > 0; sigma^2 is then within rtol of an eigenvalue of J^T J.
        max_iterations: most products with J and with J^T, each.
        seed: of the start vector.

    Raises:
        EstimateError: the residual is above rtol after max_iterations, or something is not finite.
        ValueError: an argument outside its range.

    References:
        Golub and Van Loan, "Matrix Computations", 4th ed. (2013), section 8.2.
    """
    _check_budget(rtol, max_iterations)
    jacobian = Jacobian(function, z, args, twice=True)
    v = jacobian.start(seed)
    residual = float("inf")
    for n in range(1, max_iterations + 1):
        product = jacobian.transposed(jacobian.times(v))
        square = float(v @ product)
        if square <= 0:
            # J v = 0 for a random v: J is zero.
            return LipschitzEstimate(0.0, 0.0, n)
        residual = float((product - square * v).norm()) / square
        if residual <= rtol:
            return LipschitzEstimate(square**0.5, residual, n)
        v = product / product.norm()
    raise EstimateError(
        f"power iteration reached a relative residual of {residual:.2e} after {max_iterations} iterations, "
        f"not rtol = {rtol:g}: raise max_iterations or rtol"
    )


def extreme_eigenvalues(
    function: Callable[[Tree, Tree], Tree],
    z: Tree,
    args: Tree = (),
    *,
    rtol: float = 1e-2,
    max_products: int = 80,
    seed: int = 0,
) -> SpectrumEstimate:
    """Estimate the outer eigenvalues of df/dz at z by Arnoldi's process; see NOTE [Estimates, not bounds].

    The process runs on J^T, which has the same eigenvalues and needs only vector-Jacobian products: a power iteration
    that keeps all its iterates. It ends when the Ritz pairs of largest and smallest real part, of largest imaginary
    part and of largest modulus have residuals of at most rtol times the radius.

    Args:
        function: callable of (z, args) that returns the structure of z.
        z: the point, a tensor or pytree of tensors.
        args: any pytree.
        rtol: relative residual to reach, > 0.
        max_products: most vector-Jacobian products, and most vectors of z's size that are kept.
        seed: of the start vector.

    Raises:
        EstimateError: not converged after max_products, or something is not finite.
        ValueError: an argument outside its range.

    References:
        Arnoldi, Quart. Appl. Math. 9 (1951) 17-29, doi:10.1090/qam/42792; Saad, "Numerical Methods for Large Eigenvalue
        Problems", rev. ed. (2011), chapter 6, doi:10.1137/1.9781611970739.
    """
    _check_budget(rtol, max_products)
    jacobian = Jacobian(function, z, args)
    limit = min(max_products, jacobian.size)
    basis = [jacobian.start(seed)]
    hessenberg = torch.zeros(limit + 1, limit, dtype=torch.float64)
    worst = float("inf")
    for m in range(1, limit + 1):
        w = jacobian.transposed(basis[-1])
        scale = float(w.norm())
        # Twice is enough: the second pass removes what cancellation left of the first.
        for _ in range(2):
            overlaps = torch.stack(basis) @ w
            w = w - overlaps @ torch.stack(basis)
            hessenberg[:m, m - 1] += overlaps.cpu()
        remainder = float(w.norm())
        invariant = m == jacobian.size or remainder <= 2.0**-40 * scale
        values, vectors = torch.linalg.eig(hessenberg[:m, :m])
        radius = float(values.abs().max())
        residuals = (0.0 if invariant else remainder) * (vectors[-1].abs() / vectors.norm(dim=0))
        outer = {int(values.real.argmax()), int(values.real.argmin()), int(values.imag.argmax())}
        worst = max(float(residuals[i]) for i in outer | {int(values.abs().argmax())})
        if invariant or (m > 1 and worst <= rtol * radius):
            return SpectrumEstimate(values, worst / radius if radius else 0.0, m)
        hessenberg[m, m - 1] = remainder
        basis.append(w / remainder)
    raise EstimateError(
        f"Arnoldi's process reached a residual of {worst:.2e} after {max_products} products, above rtol = {rtol:g} "
        "of the spectral radius: raise max_products or rtol"
    )


def _check_budget(rtol: float, limit: int) -> None:
    if not (0 < rtol < 1):
        raise ValueError(f"rtol is {rtol!r}; it must be between 0 and 1")
    if limit < 1:
        raise ValueError(f"the number of products is {limit}; it must be at least 1")
