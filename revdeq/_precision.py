"""How right a reversed gradient is, and up to how many steps: predicted from the spectrum of df/dz and the formats.

NOTE [The prediction]
On an eigenvector of a normal df/dz with eigenvalue kappa, w = beta kappa, a = 1 - beta, reversal takes errors (d_y,
d_z) of the states and cotangents (p_y, p_z) through

    d_z <- (d_z - w d_y) / a + nu,     d_y <- (d_y - w d_z) / a + nu,     |nu| ~ u / |a|
    q = p_y + w p_z,     p_y <- a q,     p_z <- a p_z + w q

and the gradient of a weight, of the order of beta p z, takes beta (p_z d_y + q d_z) from each step. With variances of
both carried exactly, each largest over kappa, the relative error after N steps is

    error(N) = hypot(stored(N), C_s sum_{k<N} (sigma(p_z) sigma(d_y) + sigma(q) sigma(d_z)))
    stored(N) = u_f hypot(C_f, C_a sum_{k<N} rho^k)

where the first part is what stored states have too: f is off by u_f at every evaluation, and what it adds to states and
cotangents dies away with the contraction rate rho.

with u_f the unit roundoff of f and u that of the states. C_f and C_s are measured, and confirmed, by
`verify.rounding.envelope`. All variances are subharmonic in kappa: for a region of eigenvalues its boundary is enough.

States wider than f meet f as the very numbers of the forward pass, so that f repeats itself and w does not act: then
d <- d / a + nu. Of D components, D p are rounded otherwise, by 2 u_f, where p is the error of the states over 2 u_f.
From D p = q on that is likely, and the recursion above holds too, with max(p, 1/D) (2 u_f / a)^2 for the variance of
nu. A rebuilt state beyond the range of f's dtype ends it: the error is infinite.

Integer states (`revdeq.Bitwise`) are rebuilt to the bit, so that only the first part is left.
"""

import math

import torch
from torch import Tensor

from revdeq.rates.arguments import checked_beta, checked_eigenvalue
from revdeq.rates.spectral import spectral_rate


STATE_CONSTANT = 0.4
"""C_s: just above the greatest error of reversal over its sum that `verify.rounding.envelope` has measured."""

FUNCTION_CONSTANT = 8.0
"""C_f: the error of the gradient of few stored states in units roundoff of f, its 99th percentile; the median is 2."""

FUNCTION_GROWTH = 3.0
"""C_a: with it, the greatest error of a gradient of many stored states in bfloat16 was 0.9 of the predicted one."""

COMPONENTS = 2**20
"""D where the size of the states is not known."""

SLIP = 0.01
"""q: the chance from which on a component is taken to be rounded otherwise in reverse."""

# States and the sums inside f are at most some 2^10 times the relative error that stands for them here.
_ROOM = 2.0**-10


def function_error(beta: float | Tensor, kappa: complex | Tensor, num_steps: int, dtype: torch.dtype) -> Tensor:
    """Predict the relative error that rounding of f leaves in a gradient after 0, 1, ..., N steps: stored(N).

    This is that of stored states, and of states that are rebuilt to the bit.

    Args:
        beta: relaxation parameter(s), > 0 and different from 1.
        kappa: as for `reversal_error`.
        num_steps: N >= 0.
        dtype: dtype of f.

    Returns:
        float64 tensor of shape (N+1,) followed by the shape of beta: growing, 0 without steps.

    Raises:
        ValueError: an argument outside its range.
    """
    _check_steps(num_steps)
    b = checked_beta(beta, reversible=True)[..., None]
    rate = spectral_rate(checked_eigenvalue(kappa).flatten(), b).amax(dim=-1)
    order = torch.arange(num_steps, dtype=torch.float64).reshape(-1, *[1] * rate.ndim)
    sums = FUNCTION_GROWTH * torch.cumsum(rate**order, dim=0)
    error = unit_roundoff(dtype) * torch.hypot(torch.tensor(FUNCTION_CONSTANT, dtype=torch.float64), sums)
    return torch.cat([torch.zeros_like(rate)[None], error])


def unit_roundoff(dtype: torch.dtype) -> float:
    """Return half the distance from 1 to the next number of a floating dtype."""
    return float(torch.finfo(dtype).eps) / 2


def reversal_error(
    beta: float | Tensor,
    kappa: complex | Tensor,
    num_steps: int,
    dtype: torch.dtype,
    state_dtype: torch.dtype,
    *,
    components: int = COMPONENTS,
) -> Tensor:
    """Predict the relative error of the reversed gradient after 0, 1, ..., N steps; see NOTE [The prediction].

    Args:
        beta: relaxation parameter(s), > 0 and different from 1.
        kappa: eigenvalues of df/dz, shape (K,) or a single one; points of the boundary of a region of them will do.
        num_steps: N >= 0.
        dtype: of f.
        state_dtype: of the states, as wide or wider.
        components: number of components of both states and all samples.

    Returns:
        float64 tensor of shape (N+1,) followed by the shape of beta: growing, 0 without steps.

    Raises:
        ValueError: an argument outside its range.

    References:
        (T6, M1, M3). Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), section 3.1.
    """
    _check_steps(num_steps)
    if unit_roundoff(state_dtype) > unit_roundoff(dtype):
        raise ValueError(f"state_dtype {state_dtype} is narrower than dtype {dtype}: give one as wide or wider")
    b = checked_beta(beta, reversible=True)[..., None]
    run = _Run(b, b * checked_eigenvalue(kappa).flatten(), dtype, state_dtype, components)
    sums = [torch.zeros(b.shape[:-1], dtype=torch.float64)]
    for _ in range(num_steps):
        sums.append(sums[-1] + run.step())
    total = torch.nan_to_num(torch.stack(sums), nan=math.inf, posinf=math.inf)
    return torch.hypot(function_error(beta, kappa, num_steps, dtype), STATE_CONSTANT * total)


def greatest_steps(
    beta: float,
    kappa: complex | Tensor,
    tolerance: float,
    dtype: torch.dtype,
    state_dtype: torch.dtype,
    *,
    max_steps: int,
    components: int = COMPONENTS,
) -> int:
    """Return the greatest number of steps whose predicted error is within the tolerance, at most `max_steps`.

    Args:
        beta: relaxation parameter, > 0 and different from 1.
        kappa: as for `reversal_error`.
        tolerance: relative error of the gradient.
        dtype: of f.
        state_dtype: of the states.
        max_steps: where the search ends.
        components: as for `reversal_error`.
    """
    horizon = min(32, max_steps)
    while True:
        error = reversal_error(beta, kappa, horizon, dtype, state_dtype, components=components)
        exceeded = (~(error <= tolerance)).nonzero()
        if len(exceeded):
            return int(exceeded[0]) - 1
        if horizon == max_steps:
            return max_steps
        horizon = min(4 * horizon, max_steps)


class _Variances:
    """Variances of a pair (y, z) of complex numbers, E|y|^2, E|z|^2 and E[y conj z]; trailing dimension kappa."""

    def __init__(self, size: float, like: Tensor) -> None:
        self.yy = torch.full(like.shape, size, dtype=torch.float64)
        self.zz = self.yy.clone()
        self.yz = torch.zeros(like.shape, dtype=torch.complex128)

    def undo(self, a: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Take errors through a reversed step; return the variance of z, which meets q."""
        w2 = w.abs().square()
        zz = _positive(self.zz + w2 * self.yy - 2 * (w * self.yz).real) / a.square() + noise
        yz = (self.yz - w.conj() * self.yy) / a
        self.yy = _positive(self.yy + w2 * zz - 2 * (w.conj() * yz).real) / a.square() + noise
        self.zz, self.yz = zz, (yz - w * zz) / a
        return zz

    def pull(self, a: Tensor, w: Tensor) -> Tensor:
        """Take cotangents through a reversed step; return the variance of q."""
        w2 = w.abs().square()
        qq = _positive(self.yy + 2 * (w.conj() * self.yz).real + w2 * self.zz)
        qz = self.yz + w * self.zz
        self.yy = a.square() * qq
        self.zz = _positive(a.square() * self.zz + w2 * qq + 2 * (a * w * qz).real)
        self.yz = a.square() * qz + a * w.conj() * qq
        return qq


class _Run:
    """The recursions of NOTE [The prediction], a step at a time, for many betas at once."""

    def __init__(self, b: Tensor, w: Tensor, dtype: torch.dtype, state_dtype: torch.dtype, components: int) -> None:
        self._a, self._w = 1 - b, w
        self._state, self._function = unit_roundoff(state_dtype), unit_roundoff(dtype)
        self._wide = self._state < self._function
        self._greatest = _ROOM * torch.finfo(dtype).max
        self._components = components
        self._cotangents = _Variances(1.0, w)
        self._errors = _Variances(0.0, w)
        self._own = torch.zeros_like(b)

    def step(self) -> Tensor:
        """Return what the next reversed step adds to the error, largest over kappa."""
        p_z, d_y = self._cotangents.zz, self._errors.yy + self._own
        q = self._cotangents.pull(self._a, self._w)
        noise = (self._state / self._a).square()
        if self._wide:
            self._own = self._own / self._a.square() + noise
            wrong = self._own + torch.maximum(self._errors.yy, self._errors.zz).amax(dim=-1, keepdim=True)
            chance = (wrong.sqrt() / (2 * self._function)).clamp(max=1.0)
            slipped = (2 * self._function / self._a).square() * chance.clamp(min=1 / self._components)
            noise = torch.where(chance * self._components >= SLIP, slipped, 0.0)
        d_z = self._errors.undo(self._a, self._w, noise) + self._own
        added = _spread(p_z) * self._seen(d_y) + _spread(q) * self._seen(d_z)
        # No cotangent hides a state that f cannot hold.
        return torch.where(torch.isnan(added), math.inf, added)

    def _seen(self, variance: Tensor) -> Tensor:
        spread = _spread(variance)
        return torch.where(spread <= self._greatest, spread, math.inf)


def _check_steps(num_steps: int) -> None:
    if num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 0")


def _spread(variance: Tensor) -> Tensor:
    return variance.amax(dim=-1).sqrt()


def _positive(variance: Tensor) -> Tensor:
    # Differences of variances that cancel may round to just below 0.
    return variance.clamp(min=0.0)
