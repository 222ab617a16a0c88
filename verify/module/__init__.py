"""Checks for users' own modules f(z, args): `check_module`, and assertions for their tests."""

from verify.module.assertions import (
    assert_contracting as assert_contracting,
    assert_derivative as assert_derivative,
    assert_gradient_exact as assert_gradient_exact,
    assert_headroom as assert_headroom,
    assert_replayable as assert_replayable,
    assert_rows_independent as assert_rows_independent,
)
from verify.module.check import CLAIMS as CLAIMS, check_module as check_module
from verify.module.finding import Finding as Finding, Outcome as Outcome
from verify.module.specimen import CheckError as CheckError


__all__ = [
    "CLAIMS",
    "CheckError",
    "Finding",
    "Outcome",
    "assert_contracting",
    "assert_derivative",
    "assert_gradient_exact",
    "assert_headroom",
    "assert_replayable",
    "assert_rows_independent",
    "check_module",
]
