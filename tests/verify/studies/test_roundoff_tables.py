"""The tables of the round-off page: what they hold, and that the page has what they print."""

from pathlib import Path

import pandas as pd
import pytest

from verify.case import Case
from verify.studies.rounding.ratios import ratio_frame
from verify.studies.rounding.tables import (
    BITWISE_BETAS,
    bits,
    bound_shares,
    constants,
    envelope_summary,
    main,
    markdown,
)


PAGE = Path(__file__).parents[3] / "docs" / "roundoff.md"


def test_remainders_take_log2_m_bits_where_m_is_a_power_of_two():
    table = bits().set_index("m")
    assert len(bits()) == len(BITWISE_BETAS)
    for m, exact in ((2, 1.0), (4, 2.0), (8, 3.0)):
        assert set(table.bits[m]) == {exact}
    assert bool((table.bits >= table["log2 m"]).all())
    assert bool((table.bits <= 1.01 * table["log2 m"]).all())


def test_no_bound_is_crossed():
    table = bound_shares((0.5,), steps=(2,))
    assert set(table.columns) == {"f", "states", "count", "median", "max", "crossed"}
    assert not bool(table.crossed.any())
    assert bool((table["count"] > 10).all())


def test_constants_are_of_equal_formats_and_sums_over_steps():
    frame = ratio_frame([Case("dense-tanh", 0.8, 4, "float32", states) for states in ("float32", "float64")])
    table = constants(frame)
    counted = frame.query("check == 'gradient' and adjoint == 'reversible' and dtype == state_dtype and leaf != 'z0'")
    assert table["count"].tolist() == [len(counted)]


def test_an_envelope_is_summed_up_by_formats():
    frame = pd.DataFrame(
        {
            "dtype": ["float32", "float32", "float64"],
            "state_dtype": ["float32", "float32", "float64"],
            "measured": [1e-4, 2e-4, None],
            "safe": [True, False, None],
            "inside": [1.0, 3.0, None],
        }
    )
    table = envelope_summary(frame)
    assert table.to_dict("records") == [
        {
            "dtype": "float32",
            "state_dtype": "float32",
            "tolerance": 1e-3,
            "confirmed": 2,
            "safe": 1,
            "median_inside": 2.0,
            "most": 3.0,
        }
    ]


def test_a_table_in_markdown_has_a_row_a_line():
    text = markdown(pd.DataFrame({"name": ["a"], "value": [0.123456]}))
    assert text == "| name | value |\n| --- | --- |\n| a | 0.123 |"


def test_the_page_names_the_command_and_the_bits():
    text = PAGE.read_text(encoding="utf-8")
    assert "python -m verify.studies.rounding.tables" in text
    for row in bits().to_dict("records"):
        assert f"| {row['m']} | {row['bits']:.4g} | {row['log2 m']:.4g} |" in text


@pytest.mark.nightly
def test_the_command_prints_every_table(capsys):
    main(["--quick"])
    printed = capsys.readouterr().out
    assert printed.count("### ") == 6
    assert "nan" not in printed
