"""Faults planted in the proofs, in the comparison with torch and in the re-checker are seen by what is made for them.

A fault changes one line of one function of the kernel. Without a fault every question below is answered well; with a
fault the question that is named beside it is not.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any

import pytest

from certificate_questions import QUESTIONS, written, written_set
from verify.certificate.kernel import (
    bits,
    check,
    claims,
    conclusions,
    drawn,
    enclosures,
    fixed_points,
    machine,
    prove,
    runner,
    sets,
    steps,
)


FAULTS: dict[str, tuple[Any, str, str, str, str]] = {
    "an undecided comparison goes as recorded": (
        runner.Runner,
        "_see_that",
        'raise OtherBranch(f"whether {x.str(8)} is below {y.str(8)} is undecided")',
        'holds = outcome == "1"',
        "jump",
    ),
    "a bend has the slope of one side": (
        machine.Machine,
        "_chosen",
        "return HULL, HULL",
        "return None, arb(1)",
        "bend",
    ),
    "a quotient's slope has another sign": (
        machine.Machine,
        "_slopes",
        "[-(result / y)",
        "[(result / y)",
        "honest cell",
    ),
    "a product is pulled back untransposed": (
        machine.Machine,
        "_back_through_product",
        "product = c * self._matrix(entry, 1, values, turned=True)",
        "product = c * self._matrix(entry, 1, values)",
        "honest cell",
    ),
    "rows of the Jacobian are its columns": (
        fixed_points,
        "jacobian",
        "columns.transpose().entries()",
        "columns.entries()",
        "reference",
    ),
    "the adjoint system is not transposed": (
        fixed_points,
        "adjoint",
        "identity(width) - block.transpose()",
        "identity(width) - block",
        "reference",
    ),
    "the adjoint of y is not relaxed": (steps, "back_through", "p_y = [a * x for x in q]", "p_y = q", "reference"),
    "Krawczyk's operator may leave the box": (
        fixed_points,
        "fixed_point",
        "inner.is_finite() and outer.contains_interior(inner)",
        "inner.is_finite()",
        "forged box",
    ),
    "singular vectors may be short": (fixed_points, "norm_bound", " / defect", "", "forged vectors"),
    "absence is proved at the start alone": (
        fixed_points,
        "absence",
        "arb(0, (slopes * reach).abs_upper())",
        "arb(0)",
        "forged absence",
    ),
    "numbers that are apart are not seen": (
        enclosures.Agreement,
        "__init__",
        "if not x.overlaps(y) and",
        "if False and",
        "wrong backward",
    ),
    "one leaf is compared": (
        enclosures.Agreement,
        "__init__",
        "own.items()",
        "list(own.items())[:1]",
        "wrong backward",
    ),
    "a kink is forgotten": (prove, "on_a_kink", "found.add(name)", "pass", "kink"),
    "claims need not hold what is proved": (
        claims,
        "contained",
        "if not arb(text).contains(ball)",
        "if False",
        "forged value",
    ),
    "claims may be wide": (
        claims,
        "contained",
        "if not arb(text).rad() <=",
        "if False and not arb(text).rad() <=",
        "forged width",
    ),
    "sentences are not derived": (
        check,
        "recheck",
        "if not same(derived[key], certificate[key])",
        "if False",
        "forged sentence",
    ),
    "the seal is not read": (check, "recheck", 'if certificate["seal"] != sealed(certificate)', "if False", "unsealed"),
    "the drawn graph is not that of the program": (
        drawn,
        "check_graph",
        "if not above[place] >> owner[slot] & 1",
        "if False",
        "forged graph",
    ),
    "a claim may be left out": (conclusions, "_findings", "if missing:", "if False:", "omission"),
    "the radius of the truth is no error": (
        bits,
        "bits_of",
        "(arb(value) - ball)",
        "(arb(value) - ball.mid())",
        "wide truth",
    ),
    "states may leave their box": (sets, "prove_set", "if not reached < allowed", "if False", "narrow box of states"),
    "logits stand still": (sets.ProvedSet, "_decide", "- other - r)", "- other)", "moving logits"),
}
"""What is wrong: owner and name of a function, a piece of it, what stands in its place, and what must see it."""


def plant(owner: Any, name: str, piece: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a function with a fault in the place of one of the kernel, wherever it was imported."""
    original = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(piece) == 1, f"{name} does not hold {piece!r} once"
    space: dict[str, Any] = {}
    exec(compile(source.replace(piece, fault), name, "exec"), original.__globals__, space)
    if inspect.isclass(owner):
        monkeypatch.setattr(owner, name, space[name])
        return
    for module in [module for key, module in sys.modules.items() if key.startswith("verify.certificate")]:
        if getattr(module, name, None) is original:
            monkeypatch.setattr(module, name, space[name])


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_question_is_answered_well_without_a_fault(question: str) -> None:
    assert QUESTIONS[question]()


@pytest.mark.parametrize("fault", list(FAULTS))
def test_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, piece, wrong, question = FAULTS[fault]
    for certificate in ("dense", "absent"):
        written(certificate)
    written_set()
    plant(owner, name, piece, wrong, monkeypatch)
    assert not QUESTIONS[question]()
