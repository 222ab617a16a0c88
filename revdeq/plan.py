"""Plan a solve before it runs: which beta, how many steps, what error, how many bits, how much memory and work."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq.estimate import extreme_eigenvalues
from revdeq.memory import Memory, memory_of
from revdeq.rates import SPECTRA, Spectrum, ellipse_points, error_growth, semi_axes, spectral_rate
from revdeq.tree import Tree, flatten


class PlanError(ValueError):
    """The wish cannot be met; the message says what is reachable and what would meet it."""


@dataclass(frozen=True)
class Plan:
    """What a solve is predicted to do. Predictions are those of a normal df/dz with the spectrum said, not bounds.

    Attributes:
        beta: relaxation parameter for `Reversible`.
        num_steps: steps, each two evaluations of f.
        rate: asymptotic contraction rate per step.
        residual: ||f(z_N) - z_N|| over ||f(z_0) - z_0||.
        solution_error: |z_N - z*| over |z_0 - z*|.
        truncation_error: relative difference of the N-step gradient and the implicit one.
        rounding_error: relative error of the reversed N-step gradient.
        gradient_error: what the plan was asked to keep small: rounding, and truncation where the target is the fixed
            point.
        bits_left: -log2 of rounding_error.
        bits_lost: bits of the state dtype that the reversal costs the gradient.
        evaluations: evaluations of f, forward and backward together (4 N).
        vjps: vector-Jacobian products (2 N).
        memory: bytes, or None where the state was not given.
        dtype: dtype of z0 and of f.
        state_dtype: dtype of the coupled states.
        target: "fixed-point" or "n-step".
        spectrum: what was assumed of the eigenvalues of df/dz, in words.
    """

    beta: float
    num_steps: int
    rate: float
    residual: float
    solution_error: float
    truncation_error: float
    rounding_error: float
    gradient_error: float
    bits_left: float
    bits_lost: float
    evaluations: int
    vjps: int
    memory: Memory | None
    dtype: torch.dtype
    state_dtype: torch.dtype
    target: str
    spectrum: str

    def __str__(self) -> str:
        lines = [
            f"Reversible(beta={self.beta:.6g}), {self.num_steps} steps   [{self.spectrum}]",
            f"  rate per step        {self.rate:.6g}",
            f"  residual             {self.residual:.2e} of the initial one",
            f"  gradient error       {self.gradient_error:.2e}   ({self.target})",
            f"    truncation         {self.truncation_error:.2e}   N-step against implicit gradient",
            f"    rounding           {self.rounding_error:.2e}   f in {_name(self.dtype)}, states in "
            f"{_name(self.state_dtype)}",
            f"  bits                 {self.bits_left:.1f} left, {self.bits_lost:.1f} lost to the reversal",
            f"  work                 {self.evaluations} evaluations of f and {self.vjps} VJPs, backward included",
        ]
        if self.memory is not None:
            lines.append(
                f"  memory               {self.memory.reversible} bytes at any number of steps; "
                f"unrolled {self.memory.unrolled} bytes"
            )
        lines.append("  predictions for a normal df/dz with this spectrum at the fixed point; not bounds")
        return "\n".join(lines)


def plan(
    contraction_constant: float | None = None,
    *,
    spectrum: Spectrum = "any",
    real: float | None = None,
    imaginary: float | None = None,
    function: Callable[[Tree, Tree], Tree] | None = None,
    z: Tree = None,
    args: Tree = (),
    dtype: torch.dtype | None = None,
    state_dtype: torch.dtype | None = None,
    gradient_error: float = 1e-3,
    target: str = "fixed-point",
    beta: float | None = None,
    num_steps: int | None = None,
    max_steps: int = 256,
) -> Plan:
    """Choose beta and the number of steps for a wished gradient error, or say what would meet it.

    The spectrum of df/dz is a disc of radius k ("any"), an interval ("real", "imaginary"), an ellipse, or that of a
    function at a state, which is estimated. beta and num_steps are found together, fewest steps first; either can be
    given, and then only the other is sought.

    Args:
        contraction_constant: k, Lipschitz constant of f in z; not with "ellipse" or with a function.
        spectrum: "any", "real", "imaginary" or "ellipse".
        real: semi-axis along the real axis, with "ellipse".
        imaginary: semi-axis along the imaginary axis, with "ellipse".
        function: callable of (z, args) whose eigenvalues are estimated at z, in place of the constants.
        z: a state near the fixed point, with function.
        args: any pytree, with function.
        dtype: dtype of f and of z0; the default is that of z, else float32.
        state_dtype: dtype of the coupled states; the default is float64.
        gradient_error: relative error that is wished, > 0.
        target: "fixed-point" counts the difference from the implicit gradient, "n-step" only the rounding of the
            N-step gradient and needs num_steps.
        beta: fixed relaxation parameter, or None to choose it.
        num_steps: fixed number of steps, or None to choose it.
        max_steps: most steps to consider.

    Returns:
        A `Plan`; print it.

    Raises:
        PlanError: the wish cannot be met.
        ValueError, TypeError: an argument is not as said above.
        EstimateError: the eigenvalues of function could not be estimated.
    """
    if not (gradient_error > 0 and math.isfinite(gradient_error)):
        raise ValueError(f"gradient_error must be positive and finite, got {gradient_error!r}")
    if target not in ("fixed-point", "n-step"):
        raise ValueError(f"target must be 'fixed-point' or 'n-step', got {target!r}")
    if target == "n-step" and num_steps is None:
        raise ValueError("target='n-step' needs num_steps: without steps the 0-step gradient has no error")
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    dtype = dtype or _dtype_of(z)
    state_dtype = state_dtype or torch.float64
    if torch.finfo(state_dtype).eps > torch.finfo(dtype).eps:
        raise ValueError(f"state_dtype {_name(state_dtype)} is narrower than dtype {_name(dtype)}: give a wider one")
    kappa, words = _eigenvalues(contraction_constant, spectrum, real, imaginary, function, z, args)
    wish = _Wish(kappa, words, dtype, state_dtype, gradient_error, target, beta, num_steps, max_steps)
    found = _search(wish)
    memory = None if function is None else memory_of(function, z, args, state_dtype, found.num_steps)
    chosen = _describe(wish, found, memory)
    if not (chosen.gradient_error <= gradient_error):
        raise PlanError(_refusal(wish, chosen))
    return chosen


@dataclass(frozen=True)
class _Wish:
    kappa: Tensor
    words: str
    dtype: torch.dtype
    state_dtype: torch.dtype
    gradient_error: float
    target: str
    beta: float | None
    num_steps: int | None
    max_steps: int


@dataclass(frozen=True)
class _Found:
    beta: float
    num_steps: int


def _rounding(wish: _Wish, growth: Tensor) -> Tensor:
    # f in its own precision perturbs the map whose gradient is taken; the sensitivity of a fixed point is 1/|1-kappa|.
    conditioning = float((1 / (1 - wish.kappa).abs()).max())
    return torch.finfo(wish.state_dtype).eps / 2 * growth + torch.finfo(wish.dtype).eps / 2 * conditioning


def _search(wish: _Wish, horizon: int = 32) -> _Found:
    """Return the fewest steps that meet the wish with their best beta; else the pair with the least error."""
    # Few steps are tried first, because the work grows with their number.
    steps = wish.num_steps or min(horizon, wish.max_steps)
    betas = _candidates() if wish.beta is None else torch.tensor([wish.beta], dtype=torch.float64)
    growth = error_growth(betas, wish.kappa, steps)
    error = _rounding(wish, growth.rounding) + (growth.truncation if wish.target == "fixed-point" else 0)
    # Where two betas meet the wish after the same steps, or none does, the lesser error wins.
    error = torch.where(torch.isfinite(error), error, torch.inf)
    if wish.num_steps is not None:
        if wish.beta is not None or wish.target == "fixed-point":
            return _Found(float(betas[error[-1].argmin()]), steps)
        # Any small enough beta is exact enough for its own N steps: of those that are, take the furthest converged.
        met = error[-1] <= wish.gradient_error
        score = torch.where(met, growth.solution[-1], torch.inf) if bool(met.any()) else error[-1]
        return _Found(float(betas[score.argmin()]), steps)
    error = error[1:]
    best, which = error.min(dim=1)
    met = (best <= wish.gradient_error).nonzero()
    if not len(met) and steps < wish.max_steps:
        return _search(wish, 4 * horizon)
    n = int(met[0]) if len(met) else int(best.argmin())
    return _Found(float(betas[which[n]]), n + 1)


def _candidates() -> Tensor:
    # Dense near 1 on both sides, where the fastest and most forgetful betas are; 1 itself is not among them.
    gaps = torch.cat(
        [torch.logspace(-6, -1.5, 24, dtype=torch.float64), torch.linspace(0.04, 0.98, 95, dtype=torch.float64)]
    )
    return torch.cat([1 - gaps, 1 + gaps]).sort().values


def _describe(wish: _Wish, found: _Found, memory: Memory | None) -> Plan:
    growth = error_growth(found.beta, wish.kappa, found.num_steps)
    truncation = float(growth.truncation[-1])
    rounding = float(_rounding(wish, growth.rounding[-1]))
    reversal = float(growth.rounding[-1])
    return Plan(
        beta=found.beta,
        num_steps=found.num_steps,
        rate=float(spectral_rate(wish.kappa, found.beta).max()),
        residual=float(growth.residual[-1]),
        solution_error=float(growth.solution[-1]),
        truncation_error=truncation,
        rounding_error=rounding,
        gradient_error=rounding + (truncation if wish.target == "fixed-point" else 0.0),
        bits_left=-math.log2(rounding),
        bits_lost=math.log2(max(1.0, reversal)),
        evaluations=4 * found.num_steps,
        vjps=2 * found.num_steps,
        memory=memory,
        dtype=wish.dtype,
        state_dtype=wish.state_dtype,
        target=wish.target,
        spectrum=wish.words,
    )


def _refusal(wish: _Wish, best: Plan) -> str:
    """Say what was reached and what would meet the wish."""
    fixed = [
        part
        for part, given in ((f"beta = {wish.beta}", wish.beta), (f"num_steps = {wish.num_steps}", wish.num_steps))
        if given is not None
    ]
    advice: list[str] = []
    floor = float(_rounding(wish, torch.zeros((), dtype=torch.float64)))
    if floor > wish.gradient_error:
        advice.append(f"a wider dtype for f (in {_name(wish.dtype)} its own rounding gives {floor:.1e})")
    if fixed:
        advice.append(f"leaving {' and '.join(fixed)} to be chosen")
    if best.num_steps == wish.max_steps and wish.num_steps is None:
        advice.append(f"more than {wish.max_steps} steps (max_steps)")
    if wish.state_dtype != torch.float64 and best.rounding_error > floor:
        advice.append("state_dtype=torch.float64")
    if wish.words.startswith("arbitrary"):
        advice.append("knowing that the spectrum is real or imaginary, where beta beyond 1 or below it keeps balance")
    advice.append(f"a smaller contraction constant, or gradient_error >= {best.gradient_error:.1e}")
    if best.rounding_error - floor > wish.gradient_error / 2:
        advice.append("an adjoint that stores the states (UnrolledAdjoint) or solves for the implicit gradient")
    return (
        f"a gradient error of {wish.gradient_error:.1e} cannot be met ({wish.words}): the best is "
        f"{best.gradient_error:.1e} with beta = {best.beta:.4g} and {best.num_steps} steps (truncation "
        f"{best.truncation_error:.1e}, rounding {best.rounding_error:.1e}). What would: {'; '.join(advice)}."
    )


def _eigenvalues(
    contraction_constant: float | None,
    spectrum: Spectrum,
    real: float | None,
    imaginary: float | None,
    function: Callable[[Tree, Tree], Tree] | None,
    z: Tree,
    args: Tree,
) -> tuple[Tensor, str]:
    if function is None:
        if z is not None:
            raise ValueError("z was given without function: give both, or a contraction_constant alone")
        p, q = semi_axes(contraction_constant, spectrum, real=real, imaginary=imaginary)
        words = {
            "any": f"arbitrary map with contraction constant {contraction_constant}",
            "real": f"real spectrum in [-{p:g}, {p:g}]",
            "imaginary": f"imaginary spectrum in i[-{q:g}, {q:g}]",
            "ellipse": f"spectrum in the ellipse with semi-axes {p:g} and {q:g}",
        }
        assert set(words) == set(SPECTRA)
        return ellipse_points(p, q, 33), words[spectrum]
    if contraction_constant is not None or real is not None or imaginary is not None:
        raise ValueError("give either a function, whose spectrum is estimated, or constants, not both")
    if z is None:
        raise ValueError("function was given without z: give the state at which its spectrum is estimated")
    estimate = extreme_eigenvalues(function, z, args)
    if not (max(estimate.real_max, -estimate.real_min) < 1):
        raise PlanError(
            f"df/dz has eigenvalues with real part from {estimate.real_min:.4g} to {estimate.real_max:.4g} (estimate), "
            "and no beta converges outside (-1, 1): an averaged map helps below -1, a smaller gain of f above 1"
        )
    words = f"{len(estimate.ritz_values)} eigenvalues estimated at z, moduli up to {estimate.radius:.4g}"
    return estimate.ritz_values, words


def _dtype_of(z: Tree) -> torch.dtype:
    if z is None:
        return torch.float32
    leaves, _ = flatten(z)
    return leaves[0].dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
