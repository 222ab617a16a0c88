"""The page docs/criteria.md, made from what the checks declare: `python -m verify.criteria_page > docs/criteria.md`."""

from __future__ import annotations

from typing import Any

from verify.checks import CHECKS, TOPICS, Check


_HEAD = """# Criteria

One table of what each check claims and how the gate judges its rows, made from the checks' own modules
(`verify/checks`, one claim each) by `python -m verify.criteria_page`. A row holds the numbers that `measured`
follows from, so that it can be recomputed. Where *power* is limited, a row whose power is larger could not have seen
a fault, and is counted and never passed; of the rows that a profile plans the share named must have power, and where
*logic* is said, two thirds of the float64 rows must see a relative fault of 2^-20. A planted fault that is named must
be killed by the check.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for topic in TOPICS:
        parts.append(f"## {topic.capitalize()}\n")
        parts += [_entry(check) for check in CHECKS.values() if check.topic == topic]
    return "\n".join(parts)


def _entry(check: Check[Any]) -> str:
    criterion = check.criterion
    facts = {
        "allowed": f"{criterion.comparison} {criterion.threshold:.4g} ({criterion.unit}): {criterion.why}",
        "measured": f"`{criterion.reading.formula}`",
        "power": _power(check),
        "reference": "uncertainty at most 2^-10 of the scale" if criterion.reference else "",
        "where": _sentence(check.applies.__doc__),
        "kills": ", ".join(check.kills),
    }
    lines = [f"- {name}: {text}" for name, text in facts.items() if text]
    return "\n".join([f"### {check.name}\n", f"{_sentence(criterion.claim)}\n", *lines, ""])


def _power(check: Check[Any]) -> str:
    criterion = check.criterion
    if criterion.power is None:
        return ""
    logic = ", logic" if criterion.logic else ""
    return f"<= {criterion.power:.4g} in {criterion.effective:.3g} of the rows at least{logic}"


def _sentence(text: str | None) -> str:
    return (text or "").strip().splitlines()[0].rstrip(".")


if __name__ == "__main__":
    print(page(), end="")
