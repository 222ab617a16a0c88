"""How a function converges, measured by iterating it: what a plan is checked against, and falls back on.

Eigenvalues estimated from products are Ritz values. Where df/dz is far from normal they are those of a neighbouring
matrix: they may lie beyond 1 although the map contracts, or promise a rate that transients hide for many steps. The
residuals of the iteration itself know better, and are what a plan for a function has to agree with.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor

from revdeq._estimate import extreme_eigenvalues
from revdeq._planned import Plan, PlanError
from revdeq._tree import Tree, flatten
from revdeq._trial import Run, on_vectors
from revdeq.rates import ellipse_points, error_growth


class Spectrum(NamedTuple):
    """Eigenvalues to plan with.

    Attributes:
        values: complex128 tensor.
        words: what they are.
        beta: the one relaxation parameter for which they stand; None for all.
    """

    values: Tensor
    words: str
    beta: float | None = None


class MeasuredConvergence:
    """The iteration of a function from z, or from near it where z is a fixed point already; a context.

    Args:
        function: callable of (z, args).
        z: a state near the fixed point.
        args: any pytree.
    """

    def __init__(self, function: Callable[[Tree, Tree], Tree], z: Tree, args: Tree) -> None:
        self._problem = (function, z, args)
        self._stack = ExitStack()
        self._runs: dict[float, Run] = {}
        self._roundoff = max(torch.finfo(leaf.dtype).eps for leaf in flatten(z)[0])

    def __enter__(self) -> Self:
        self._function, z = self._stack.enter_context(on_vectors(*self._problem))
        value = self._function(z)
        if float((value - z).norm()) <= _NEAR * float(value.norm()):
            # A residual that is rounding noise shows nothing. One of a thousandth is small for f, and far from that.
            noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            size = max(float(z.norm()), float(value.norm())) or math.sqrt(z.numel())
            z = z + noise.to(z) * (_NEAR * size / float(noise.norm()))
        self._start = z
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def residual(self, beta: float, num_steps: int) -> float:
        """Return `||f(z_N) - z_N|| / ||f(z_0) - z_0||` after N steps."""
        run = self._run(beta, num_steps)
        return run.residuals[num_steps] / run.residuals[0] if run.residuals[0] else 0.0

    @property
    def floor(self) -> float:
        """The relative residual that rounding leaves: what f cannot tell from zero."""
        first = self._run(_BETAS[0], 0).residuals[0]
        return _UNITS * self._roundoff * max(1.0, float(self._start.norm()) / first if first else 1.0)

    def spectra(self, max_steps: int, beta: float | None) -> Iterator[Spectrum]:
        """Yield eigenvalues to plan with, the estimated ones first, then those of discs that converge as was measured.

        Args:
            max_steps: steps after which an iteration has not converged.
            beta: the one to plan for; None for any.
        """
        self._estimate = estimate = extreme_eigenvalues(*self._problem)
        if max(estimate.real_max, -estimate.real_min) < 1:
            count = len(estimate.ritz_values)
            words = f"{count} eigenvalues estimated at z, moduli up to {estimate.radius:.4g}"
            yield Spectrum(estimate.ritz_values, words)
        discs = [disc for b in (_BETAS if beta is None else (beta,)) if (disc := self._disc(b, max_steps)) is not None]
        discs.sort(key=lambda disc: float(disc.values.abs().max()))
        yield from (disc._replace(beta=None) for disc in discs[:1] if beta is None)
        yield from discs

    def agreeing(
        self,
        planned: Callable[[Tensor, str, float | None], Plan],
        max_steps: int,
        beta: float | None,
        *,
        checked: bool,
    ) -> Plan:
        """Return the plan with the fewest steps, of those whose residual is what the iteration shows.

        Args:
            planned: makes a plan of eigenvalues, words for them, and a beta or None.
            max_steps: most steps to consider.
            beta: the one to plan for; None for any.
            checked: whether residuals matter.

        Raises:
            PlanError: there is none.
        """
        refusal: PlanError | None = None
        agreeing: list[Plan] = []
        for values, words, only in self.spectra(max_steps, beta):
            try:
                plan = planned(values, words, beta if only is None else only)
            except PlanError as error:
                refusal = refusal or error
                continue
            residual = self.residual(plan.beta, plan.num_steps) if checked else 0.0
            if residual <= max(_OFF * plan.residual, self.floor):
                agreeing.append(plan)
                continue
            refusal = refusal or PlanError(
                f"no plan agrees with the iteration itself: with beta = {plan.beta:.4g} the residual is {residual:.1e} "
                f"of the initial one after {plan.num_steps} steps, and {plan.residual:.1e} was predicted ({words}). "
                "What would help: more max_steps, a state z nearer to the fixed point, a smaller gain of f."
            )
        if agreeing:
            # Integers are a last resort: their remainders grow with the steps.
            return min(agreeing, key=lambda plan: (plan.arithmetic == "bitwise", plan.num_steps, plan.gradient_error))
        tried = "neither beta 0.5 nor 0.8 does" if beta is None else f"beta {beta:.4g} does not either"
        raise refusal or PlanError(
            f"df/dz has eigenvalues with real part from {self._estimate.real_min:.4g} to {self._estimate.real_max:.4g} "
            f"(estimate), no beta converges outside (-1, 1), and {tried} from z within {max_steps} steps: an averaged "
            "map helps below -1, a smaller gain of f above 1; give more max_steps where it is only slow."
        )

    def _disc(self, beta: float, max_steps: int) -> Spectrum | None:
        """Return the smallest disc whose worst map takes as many steps with this beta as were measured, or more."""
        goal = min(0.1, max(_GOAL, self.floor))
        ratios = (self.residual(beta, n) for n in range(max_steps + 1))
        steps = next((n for n, ratio in enumerate(ratios) if ratio <= goal), None)
        if steps is None:
            return None
        low, high = 0.0, 1.0
        while high - low > 1e-3:
            radius = (low + high) / 2
            curve = error_growth(beta, ellipse_points(radius, radius, 33), steps).residual
            low, high = (low, radius) if float(curve[-1]) > goal else (radius, high)
        words = (
            f"a disc of radius {high:.3g} that converges as was measured: beta {beta:.3g}, {steps} steps to {goal:.0e}"
        )
        return Spectrum(ellipse_points(high, high, 33), words, beta)

    def _run(self, beta: float, num_steps: int) -> Run:
        run = self._runs.setdefault(beta, Run(self._function, self._start, beta))
        while len(run.residuals) <= num_steps:
            if run.residuals and not math.isfinite(run.residuals[-1]):
                run.residuals.append(math.inf)
            else:
                run.step(keep=False)
        return run


# A measured residual may be so many times the predicted one, which is that of a normal df/dz.
_OFF = 10.0
# The betas that are tried where estimates fail; a residual that shows convergence; how near a fixed point is too near;
# units of rounding in a residual.
_BETAS, _GOAL, _NEAR, _UNITS = (0.5, 0.8), 1e-6, 1e-3, 30.0
