"""Claims that hold to the last bit: backward repeats, is linear, reads its cotangents, leaves the rest alone."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from verify.problems.problem import to_bfloat16
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.observation import bind, observe, same_bits
from verify.trial.ratio import rms
from verify.trial.trial import Trial, cost, to_numpy


ADJOINTS: tuple[Adjoint, ...] = ("reversible", "unrolled")
EXPONENT = 10


def check_repeatable(trial: Trial) -> list[Measurement]:
    """Backward twice: from one graph with retain_graph, and from two solves.

    Returns:
        A row each; `measured` is the number of components that differ in any bit.

    How this can fail: backward consumes or overwrites what it starts from; f is not replayed as it ran; an
    accumulation whose order is not fixed (on a GPU, atomic additions).

    References:
        (A9).
    """
    first, again = _pull(trial, [1.0, 1.0], same_graph=True)
    (fresh,) = _pull(trial, [1.0])
    return [
        _row(trial, "repeatable", "second backward", _differing(first, again)),
        _row(trial, "repeatable", "second solve", _differing(first, fresh)),
    ]


def check_linear(trial: Trial) -> list[Measurement]:
    """Backward of 0 is 0, and of 2^10 w is 2^10 times backward of w, to the bit.

    Returns:
        A row each; `measured` is the number of components that are not so.

    How this can fail: clipping, a stale or constant term, a threshold on the cotangent, gradients left from before.

    References:
        (A9): a product with a power of two commutes with rounding, short of over- and underflow.
    """
    plain, scaled, zero = _pull(trial, [1.0, 2.0**EXPONENT, 0.0], same_graph=True)
    expected = [None if value is None else value * 2.0**EXPONENT for value in plain]
    nothing = [None if value is None else torch.zeros_like(value) for value in zero]
    return [
        _row(trial, "linear", "cotangent 0", _differing(zero, nothing)),
        _row(trial, "linear", f"cotangent 2^{EXPONENT} w", _differing(scaled, expected)),
    ]


def check_cotangent_layout(trial: Trial) -> list[Measurement]:
    """Cotangents that are expanded or stored transposed give the gradients of their contiguous copies.

        R = max over leaves of RMS(g_odd - g_contiguous) / sig(leaf)

    Returns:
        A row each. Not to the bit: torch's vectorised functions round otherwise on other strides.

    How this can fail: a kernel or a view that assumes contiguous memory.

    References:
        torch.autograd.gradcheck warns of inputs with overlapping memory for the same reason.
    """
    cotangent, _ = trial.problem.cotangents(trial.case.torch_dtype, trial.case.device)
    expanded = cotangent[:1].clone().expand_as(cotangent)
    transposed = cotangent.transpose(0, -1).contiguous().transpose(0, -1)
    spread = trial.scale().gradient
    rows: list[Measurement] = []
    for layout, odd in (("expanded", expanded), ("transposed", transposed)):
        (from_odd,) = _pull(trial, [1.0], cotangents=odd)
        (from_plain,) = _pull(trial, [1.0], cotangents=odd.contiguous())
        ratios = [
            math.nan if one is None or other is None else rms(to_numpy(one) - to_numpy(other)) / (spread[leaf] or 1.0)
            for leaf, one, other in zip(trial.problem.leaves, from_odd, from_plain, strict=True)
        ]
        worst = max(ratios, key=lambda ratio: math.inf if math.isnan(ratio) else ratio)
        rows.append(trial.row("cotangent-layout", "reversible", leaf=layout, measured=worst, unit="ratio R"))
    return rows


def check_untouched(trial: Trial) -> list[Measurement]:
    """Nothing that belongs to the caller is changed: inputs, results, random state, grad mode.

    Returns:
        A row per adjoint; `measured` is the number of things changed, which `reason` names.

    How this can fail: in-place steps on aliased tensors, a random state saved and not restored, a mode left switched.

    References:
        (A9).
    """
    rows: list[Measurement] = []
    for adjoint in ADJOINTS:
        seen = trial.observe(adjoint)
        rows.append(
            trial.row(
                "untouched",
                adjoint,
                leaf="surroundings",
                got=float(len(seen.changed)),
                expected=0.0,
                measured=float(len(seen.changed)),
                unit="count",
                reason="; ".join(seen.changed),
                **cost(seen),
            )
        )
    return rows


def check_samples(trial: Trial) -> list[Measurement]:
    """Change the first sample's start; no bit of the other samples' states and gradients may change.

    Returns:
        One row; `measured` is the number of components of other samples that changed.

    How this can fail: a norm, a stop or a statistic taken over the batch. Blind for a batch of one, which fails.

    References:
        (A11): a batch is a loop over its samples.
    """
    case, problem = trial.case, trial.problem
    start = problem.z0.copy()
    start[0] = to_bfloat16(0.5 * start[0] + 0.25)
    settings = trial.settings("reversible")
    moved = observe(trial.subject, replace(problem, z0=start), settings, case.torch_dtype, case.device)
    seen = trial.observe("reversible")
    pairs = [(seen.z1, moved.z1), (seen.y1, moved.y1), (seen.gradients["z0"], moved.gradients["z0"])]
    others = [(left[1:], right[1:]) for left, right in pairs if left is not None and right is not None]
    if len(others) < len(pairs) or others[0][0].numel() == 0:
        reason = "z0 got no gradient, or there is no second sample"
        return [trial.row("samples", "reversible", leaf="other samples", unit="count", status="failed", reason=reason)]
    return [_row(trial, "samples", "other samples", _differing(*map(list, zip(*others, strict=True))))]


def check_random_replay(trial: Trial) -> list[Measurement]:
    """Give f a mask drawn inside it; backward must meet the mask that forward drew.

        f(z) = (1 - mask) problem(z),      mask in [0, 1/16) drawn from the global generator at each evaluation

    One solve has one mask. The gradients must equal those of the same f with that mask passed in, to the bit.

    Returns:
        One row; `measured` is the number of gradient components that differ.

    How this can fail: the generator's state is not saved, or not put back before each evaluation, so that backward
    differentiates another map than the one that ran.

    References:
        torch.utils.checkpoint, preserve_rng_state.
    """
    drawn, given = (_masked_gradients(trial, inside) for inside in (True, False))
    return [_row(trial, "random-replay", "drawn inside", _differing(drawn, given))]


def _masked_gradients(trial: Trial, inside: bool) -> list[Tensor | None]:
    case = trial.case
    function, z0, args, leaves = bind(trial.problem, "args", case.torch_dtype, case.device)
    cotangents = list(trial.problem.cotangents(case.torch_dtype, case.device))
    before = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        mask = torch.rand(z0.shape, device=z0.device, dtype=z0.dtype)
        torch.manual_seed(0)

        def masked(z: Tensor, arguments: dict[str, Tensor]) -> Tensor:
            factor = torch.rand(z.shape, device=z.device, dtype=z.dtype) if inside else mask
            # Near the problem itself, whose domain an arbitrary factor would leave.
            return function(z, arguments) * (1.0 - factor / 16.0)

        solved = trial.subject.solve(masked, z0, args, trial.settings("reversible"))
        return list(torch.autograd.grad([solved.z1, solved.y1], list(leaves.values()), cotangents, allow_unused=True))
    finally:
        torch.set_rng_state(before)


def _pull(
    trial: Trial, factors: list[float], *, same_graph: bool = False, cotangents: Tensor | None = None
) -> list[list[Tensor | None]]:
    """Gradients of every leaf for each multiple of the cotangents, from one solve."""
    case = trial.case
    function, z0, args, leaves = bind(trial.problem, "args", case.torch_dtype, case.device)
    cotangent_z, cotangent_y = trial.problem.cotangents(case.torch_dtype, case.device)
    solved = trial.subject.solve(function, z0, args, trial.settings("reversible"))
    found: list[list[Tensor | None]] = []
    for factor in factors:
        pair = [factor * cotangent_z, factor * cotangent_y] if cotangents is None else [cotangents, cotangents]
        found.append(
            list(
                torch.autograd.grad(
                    [solved.z1, solved.y1], list(leaves.values()), pair, retain_graph=same_graph, allow_unused=True
                )
            )
        )
    return found


def _differing(left: list[Tensor | None], right: list[Tensor | None]) -> float:
    """Number of components that differ in any bit; a lost leaf counts as one, nothing at all as NaN."""
    if not left:
        return float("nan")
    count = 0
    for one, other in zip(left, right, strict=True):
        if one is None or other is None or one.shape != other.shape:
            count += 1
        elif not same_bits(one, other):
            count += int(((one != other) & ~(one.isnan() & other.isnan())).sum())
    return float(count)


def _row(trial: Trial, check: str, leaf: str, differing: float) -> Measurement:
    return trial.row(check, "reversible", leaf=leaf, got=differing, expected=0.0, measured=differing, unit="count")
