"""Plan a solve before it runs: which beta, how many steps, what error, how many bits, how much memory and work."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from revdeq._measured import MeasuredConvergence
from revdeq._memory import memory_of
from revdeq._planned import Plan as Plan, PlanError as PlanError, Reach as Reach, dtype_name
from revdeq._precision import (
    COMPONENTS,
    FUNCTION_CONSTANT,
    function_error,
    greatest_steps,
    reversal_error,
    unit_roundoff,
)
from revdeq._tree import Tree, flatten
from revdeq.arithmetic.forms import bitwise_betas, bitwise_form, tape_size
from revdeq.arithmetic.packing import GREATEST_BASE
from revdeq.rates import SPECTRA, ErrorGrowth, Spectrum, ellipse_points, error_growth, semi_axes, spectral_rate
from revdeq.rates.arguments import checked_beta


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
    arithmetic: Literal["floating", "bitwise"] | None = None,
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
        arithmetic: "floating" or "bitwise"; None for floating where it meets the wish and bitwise where only that does,
            unless a state_dtype is given, which is floating's.

    Returns:
        A `Plan`; print it.

    Raises:
        PlanError: the wish cannot be met.
        ValueError, TypeError: an argument is not as said above.
        EstimateError: the eigenvalues of function could not be estimated.
    """
    if not (gradient_error > 0 and math.isfinite(gradient_error)):
        raise ValueError(f"gradient_error is {gradient_error!r}; it must be positive and finite")
    if target not in ("fixed-point", "n-step"):
        raise ValueError(f"target is {target!r}; it must be 'fixed-point' or 'n-step'")
    if target == "n-step" and num_steps is None:
        raise ValueError("target='n-step' needs num_steps: without steps the 0-step gradient has no error")
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}; it must be at least 1")
    if arithmetic not in ("floating", "bitwise", None):
        raise ValueError(f"arithmetic is {arithmetic!r}; it must be 'floating', 'bitwise' or None")
    if arithmetic == "bitwise" and state_dtype is not None:
        raise ValueError(
            f"state_dtype is {dtype_name(state_dtype)} but bitwise states are integers: leave one of them out"
        )
    if beta is not None:
        checked_beta(beta, reversible=True)
        if arithmetic == "bitwise":
            bitwise_form(beta)
    dtype = dtype or _dtype_of(z)
    floating_only = arithmetic == "floating" or state_dtype is not None
    state_dtype = state_dtype or torch.float64
    if torch.finfo(state_dtype).eps > torch.finfo(dtype).eps:
        raise ValueError(
            f"state_dtype {dtype_name(state_dtype)} is narrower than dtype {dtype_name(dtype)}: give a wider one"
        )
    components = COMPONENTS if z is None else 2 * sum(leaf.numel() for leaf in flatten(z)[0])

    def planned(kappa: Tensor, words: str, beta: float | None) -> Plan:
        wish = _Wish(
            kappa, words, dtype, state_dtype, gradient_error, target, beta, num_steps, max_steps, components, "floating"
        )
        problem = None if function is None else (function, z, args)
        return _planned(wish, arithmetic, floating_only, problem)

    if function is None:
        if z is not None:
            raise ValueError("z was given without function: give both, or a contraction_constant alone")
        return planned(*_eigenvalues(contraction_constant, spectrum, real, imaginary), beta)
    if contraction_constant is not None or real is not None or imaginary is not None:
        raise ValueError("give either a function, whose spectrum is estimated, or constants, not both")
    if z is None:
        raise ValueError("function was given without z: give the state at which its spectrum is estimated")
    with MeasuredConvergence(function, z, args) as measured:
        return measured.agreeing(planned, max_steps, beta, checked=target == "fixed-point")


def _planned(
    wish: "_Wish",
    arithmetic: str | None,
    floating_only: bool,
    problem: tuple[Callable[[Tree, Tree], Tree], Tree, Tree] | None,
) -> Plan:
    """Return the plan that meets the wish, by floating states where those do.

    Raises:
        PlanError: none does.
    """
    ways = [wish] if arithmetic != "bitwise" else []
    if not floating_only and (wish.beta is None or bitwise_betas(wish.beta) == (wish.beta,)):
        ways.append(replace(wish, arithmetic="bitwise"))
    plans: list[Plan] = []
    for way in ways:
        found = _search(way)
        plans.append(_describe(way, found, problem))
        if plans[-1].gradient_error <= wish.gradient_error:
            return replace(plans[-1], reach=tuple(_reaches(way, found)))
    best = min(range(len(plans)), key=lambda i: plans[i].gradient_error)
    raise PlanError(_refusal(ways[best], plans[best]))


_HORIZONS = (32, 128, 512, 2048)


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
    components: int
    arithmetic: Literal["floating", "bitwise"]


@dataclass(frozen=True)
class _Found:
    beta: float
    num_steps: int


def _rounding(wish: _Wish, beta: float | Tensor, num_steps: int) -> Tensor:
    """Return the rounding error after 0, 1, ..., N steps, for each beta."""
    if wish.arithmetic == "bitwise":
        return function_error(beta, wish.kappa, num_steps, wish.dtype)
    return reversal_error(beta, wish.kappa, num_steps, wish.dtype, wish.state_dtype, components=wish.components)


def _search(wish: _Wish) -> _Found:
    """Return the fewest steps that meet the wish with their best beta; else the pair with the least error."""
    betas = _candidates(wish.arithmetic) if wish.beta is None else torch.tensor([wish.beta], dtype=torch.float64)
    if wish.num_steps is not None:
        return _search_beta(wish, betas, wish.num_steps)
    best, found = math.inf, _Found(float(betas[0]), 1)
    # Few steps are tried first, because the work grows with their number.
    for steps in (*(n for n in _HORIZONS if n < wish.max_steps), wish.max_steps):
        rounding = _rounding(wish, betas, steps)
        error = _finite(rounding + _truncation(wish, error_growth(betas, wish.kappa, steps)))[1:]
        # Where two betas meet the wish after the same steps, or none does, the lesser error wins.
        least, which = error.min(dim=1)
        met = (least <= wish.gradient_error).nonzero()
        n = int(met[0]) if len(met) else int(least.argmin())
        if len(met) or float(least[n]) < best:
            best, found = float(least[n]), _Found(float(betas[which[n]]), n + 1)
        # Rounding grows with the steps: a beta that it has ruled out stays so.
        betas = betas[rounding[-1] <= wish.gradient_error]
        if len(met) or not len(betas):
            break
    return found


def _search_beta(wish: _Wish, betas: Tensor, steps: int) -> _Found:
    """Return the beta with the least error after so many steps."""
    growth = error_growth(betas, wish.kappa, steps)
    error = _finite(_rounding(wish, betas, steps)[-1] + _truncation(wish, growth)[-1])
    if wish.beta is not None or wish.target == "fixed-point":
        return _Found(float(betas[error.argmin()]), steps)
    # Any small enough beta is exact enough for its own N steps: of those that are, take the furthest converged.
    met = error <= wish.gradient_error
    score = torch.where(met, growth.solution[-1], torch.inf) if bool(met.any()) else error
    return _Found(float(betas[score.argmin()]), steps)


def _truncation(wish: _Wish, growth: ErrorGrowth) -> Tensor:
    return growth.truncation if wish.target == "fixed-point" else torch.zeros_like(growth.truncation)


def _finite(error: Tensor) -> Tensor:
    return torch.where(torch.isfinite(error), error, torch.inf)


def _candidates(arithmetic: str) -> Tensor:
    # Dense near 1 on both sides, where the fastest and most forgetful betas are; 1 itself is not among them.
    if arithmetic == "bitwise":
        gaps = 1 / torch.tensor([*range(2, 33), 48, 64, 96, 128, 192, GREATEST_BASE], dtype=torch.float64)
    else:
        gaps = torch.cat(
            [torch.logspace(-6, -1.5, 24, dtype=torch.float64), torch.linspace(0.04, 0.98, 95, dtype=torch.float64)]
        )
    return torch.cat([1 - gaps, 1 + gaps]).sort().values


def _describe(wish: _Wish, found: _Found, problem: tuple[Callable[[Tree, Tree], Tree], Tree, Tree] | None) -> Plan:
    memory = tape = None
    if problem is not None:
        memory = memory_of(*problem, wish.state_dtype, found.num_steps)
        bitwise = wish.arithmetic == "bitwise"
        tape = tape_size(found.beta, wish.components // 2, found.num_steps) if bitwise else 0
    growth = error_growth(found.beta, wish.kappa, found.num_steps)
    truncation = float(growth.truncation[-1])
    rounding = float(_rounding(wish, found.beta, found.num_steps)[-1])
    return Plan(
        beta=found.beta,
        arithmetic=wish.arithmetic,
        num_steps=found.num_steps,
        rate=float(spectral_rate(wish.kappa, found.beta).max()),
        residual=float(growth.residual[-1]),
        solution_error=float(growth.solution[-1]),
        truncation_error=truncation,
        rounding_error=rounding,
        gradient_error=rounding + (truncation if wish.target == "fixed-point" else 0.0),
        bits_left=-math.log2(rounding),
        bits_lost=math.log2(rounding / float(function_error(found.beta, wish.kappa, found.num_steps, wish.dtype)[-1])),
        reach=(),
        evaluations=4 * found.num_steps,
        vjps=2 * found.num_steps,
        memory=memory,
        tape=tape,
        dtype=wish.dtype,
        state_dtype=wish.state_dtype if wish.arithmetic == "floating" else torch.int64,
        target=wish.target,
        considered=max(wish.max_steps, found.num_steps),
        spectrum=wish.words,
    )


def _reaches(wish: _Wish, found: _Found) -> Iterator[Reach]:
    widths: dict[Literal["floating", "wide"], torch.dtype] = {"floating": wish.dtype}
    wide = wish.state_dtype if wish.state_dtype != wish.dtype else torch.float64
    if wide != wish.dtype:
        widths["wide"] = wide
    for mode, state_dtype in widths.items():
        formats = (wish.dtype, state_dtype)
        steps = greatest_steps(
            found.beta,
            wish.kappa,
            wish.gradient_error,
            *formats,
            max_steps=max(wish.max_steps, found.num_steps),
            components=wish.components,
        )
        error = reversal_error(found.beta, wish.kappa, found.num_steps, *formats, components=wish.components)[-1]
        yield Reach(mode, state_dtype, (found.beta,), steps, max(0.0, -math.log2(float(error))))
    betas = bitwise_betas(found.beta)
    considered = max(wish.max_steps, found.num_steps)
    errors = function_error(torch.tensor(betas, dtype=torch.float64), wish.kappa, considered, wish.dtype).amax(dim=1)
    within = int((errors <= wish.gradient_error).sum()) - 1
    yield Reach("bitwise", torch.int64, betas, within, max(0.0, -math.log2(float(errors[found.num_steps]))))


def _refusal(wish: _Wish, best: Plan) -> str:
    """Say what was reached and what would meet the wish."""
    fixed = [
        part
        for part, given in ((f"beta = {wish.beta}", wish.beta), (f"num_steps = {wish.num_steps}", wish.num_steps))
        if given is not None
    ]
    advice: list[str] = []
    floor = FUNCTION_CONSTANT * unit_roundoff(wish.dtype)
    if floor > wish.gradient_error:
        advice.append(f"a wider dtype for f (in {dtype_name(wish.dtype)} its own rounding gives {floor:.1e})")
    if fixed:
        advice.append(f"leaving {' and '.join(fixed)} to be chosen")
    if best.num_steps == wish.max_steps and wish.num_steps is None:
        advice.append(f"more than {wish.max_steps} steps (max_steps)")
    if wish.state_dtype != torch.float64 and best.rounding_error > floor:
        advice.append("state_dtype=torch.float64")
    if wish.words.startswith("arbitrary"):
        advice.append("knowing that the spectrum is real or imaginary, where beta beyond 1 or below it keeps balance")
    advice.append(f"a smaller contraction constant, or gradient_error >= {best.gradient_error:.1e}")
    whole = replace(wish, arithmetic="bitwise")
    if wish.arithmetic == "floating" and (wish.beta is None or bitwise_betas(wish.beta) == (wish.beta,)):
        other = _describe(whole, _search(whole), None)
        if other.gradient_error <= wish.gradient_error:
            advice.append(f"arithmetic='bitwise' with beta = {other.beta:.6g} and {other.num_steps} steps")
    if best.rounding_error - floor > wish.gradient_error / 2:
        advice.append("an adjoint that stores the states (UnrolledAdjoint) or solves for the implicit gradient")
    return (
        f"a gradient error of {wish.gradient_error:.1e} cannot be met ({wish.words}): the best is "
        f"{best.gradient_error:.1e} with beta = {best.beta:.4g} and {best.num_steps} steps (truncation "
        f"{best.truncation_error:.1e}, rounding {best.rounding_error:.1e}). What would: {'; '.join(advice)}."
    )


def _eigenvalues(
    contraction_constant: float | None, spectrum: Spectrum, real: float | None, imaginary: float | None
) -> tuple[Tensor, str]:
    p, q = semi_axes(contraction_constant, spectrum, real=real, imaginary=imaginary)
    words = {
        "any": f"arbitrary map with contraction constant {contraction_constant}",
        "real": f"real spectrum in [-{p:g}, {p:g}]",
        "imaginary": f"imaginary spectrum in i[-{q:g}, {q:g}]",
        "ellipse": f"spectrum in the ellipse with semi-axes {p:g} and {q:g}",
    }
    assert set(words) == set(SPECTRA)
    return ellipse_points(p, q, 33), words[spectrum]


def _dtype_of(z: Tree) -> torch.dtype:
    if z is None:
        return torch.float32
    leaves, _ = flatten(z)
    return leaves[0].dtype
