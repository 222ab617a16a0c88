"""Checks: one claim each. A check measures and returns rows; it never judges."""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from verify.checks.asymptotic import check_convergence_rate, check_target_difference
from verify.checks.bitwise import (
    check_bitwise_cotangents,
    check_bitwise_refusals,
    check_bitwise_states,
    check_tape_bytes,
)
from verify.checks.bounds import check_rounding_bound
from verify.checks.counts import check_evaluations, check_saved_bytes
from verify.checks.differences import check_finite_differences, check_float64_differences, check_taylor_order
from verify.checks.duality import check_dot_product
from verify.checks.exactness import (
    check_cotangent_layout,
    check_linear,
    check_random_replay,
    check_repeatable,
    check_samples,
    check_untouched,
)
from verify.checks.forward import check_forward
from verify.checks.gradient import check_bindings, check_gradient
from verify.checks.implicit import check_implicit_gradient
from verify.checks.oracles import check_oracle, check_reference_agreement
from verify.checks.reconstruction import check_backward_states, check_reconstruction
from verify.checks.references import References as References
from verify.checks.refusal import check_errors_surface, check_refusals
from verify.checks.relative import check_relative_to_unrolled
from verify.checks.trial import Trial as Trial
from verify.result import Measurement


Check = Callable[[Trial], list[Measurement]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "forward": check_forward,
        "reconstruction": check_reconstruction,
        "backward-states": check_backward_states,
        "gradient": check_gradient,
        "bitwise-states": check_bitwise_states,
        "bitwise-cotangents": check_bitwise_cotangents,
        "bitwise-refusals": check_bitwise_refusals,
        "tape-bytes": check_tape_bytes,
        "rounding-bound": check_rounding_bound,
        "bindings": check_bindings,
        "implicit-gradient": check_implicit_gradient,
        "relative-to-unrolled": check_relative_to_unrolled,
        "target-difference": check_target_difference,
        "finite-differences": check_finite_differences,
        "float64-differences": check_float64_differences,
        "taylor-order": check_taylor_order,
        "dot-product": check_dot_product,
        "convergence-rate": check_convergence_rate,
        "evaluations": check_evaluations,
        "saved-bytes": check_saved_bytes,
        "repeatable": check_repeatable,
        "linear": check_linear,
        "cotangent-layout": check_cotangent_layout,
        "untouched": check_untouched,
        "samples": check_samples,
        "random-replay": check_random_replay,
        "refusals": check_refusals,
        "errors-surface": check_errors_surface,
        "reference-agreement": check_reference_agreement,
        "oracle": check_oracle,
    }
)
"""Every check by its name. `check_backward_states` also returns the rows of "not-stored"."""


def measure(check: str, trial: Trial) -> list[Measurement]:
    """Run one check on one trial; an exception becomes a row that says so and fails.

    Args:
        check: a key of `CHECKS`.
        trial: the trial.
    """
    random = torch.get_rng_state()
    try:
        with torch.enable_grad():
            return CHECKS[check](trial)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever a subject raises is a finding, SystemExit too)
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        reason = f"{type(error).__name__}: {error}{place}"
        return [trial.row(check, leaf="all", status="failed", reason=reason)]
    finally:
        torch.set_rng_state(random)
