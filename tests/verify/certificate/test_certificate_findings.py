"""What a certificate answers: certified, refuted, undecided, each for its own reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest
import torch
from flint import arb
from torch import nn

from verify.certificate import Answer, Certificate, CertificateError, Finding, Settings, SourceError, certify
from verify.certificate.bits import all_bits_right, bits_right, worst_of
from verify.certificate.certificate import read_certificate
from verify.certificate.source import source_from
from verify.reference.arithmetic.balls import filled
from verify.reference.graph import RandomOperationError, UnsupportedOperationError


F64 = torch.float64
Triple = tuple[Callable[[Any, Any], Any], Any, Any]
QUICK: dict[str, Any] = {"num_steps": 3, "digits": 20, "dtypes": (F64,)}


@pytest.fixture(autouse=True)
def _flint_precision_is_left_alone() -> Any:
    before = flint.ctx.prec
    yield
    assert flint.ctx.prec == before


def finding(certificate: Certificate, claim: str) -> Finding:
    return next(found for found in certificate.findings if found.claim == claim)


def scalar(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], start: float = 0.0, x: float = 0.5) -> Any:
    return function, torch.tensor([[start]], dtype=F64), torch.tensor([[x]], dtype=F64)


def test_contraction_is_certified_with_its_constant() -> None:
    found = certify(scalar(lambda z, x: 0.25 * z + x), **QUICK)
    assert found.answer is Answer.CERTIFIED
    assert found.contraction is not None
    assert 0.25 <= found.contraction["constant"] < 0.2501
    assert found.values["z_star"][0].startswith("[0.666666666666666666")
    # d z* / dx = 1 / (1 - 1/4), weighted by the cotangent, a multiple of 1/8
    (ball,) = found.values["implicit"]["args"]
    assert (3 * arb(ball)).overlaps(arb(round(3 * float(arb(ball)) * 2) / 2))


def test_expanding_map_has_a_certified_fixed_point_and_a_refuted_contraction() -> None:
    found = certify(scalar(lambda z, x: 1.5 * z + x, start=-0.9), **QUICK)
    assert finding(found, "fixed point").answer is Answer.CERTIFIED
    assert finding(found, "contraction").answer is Answer.REFUTED
    assert "at least 1.5" in finding(found, "contraction").sentence
    assert any("averaging does not either" in sentence for sentence in found.advice)
    assert found.answer is Answer.REFUTED


def test_expanding_map_with_a_negative_slope_is_told_how_to_average() -> None:
    found = certify(scalar(lambda z, x: -3.0 * z + x), **QUICK)
    assert any("alpha below 0.5" in sentence for sentence in found.advice)


def test_ill_conditioned_fixed_point_is_confirmed() -> None:
    # The rounding error of z* is 10^6 times that of f here, and the difference quotient has to know.
    found = certify(scalar(lambda z, x: 0.999999 * z + x), **QUICK)
    assert finding(found, "implicit gradient confirmed").answer is Answer.CERTIFIED


def test_map_without_fixed_point_is_refuted() -> None:
    found = certify(scalar(lambda z, x: z + x), **QUICK)
    assert finding(found, "fixed point").answer is Answer.REFUTED
    assert "no fixed point within" in finding(found, "fixed point").sentence
    assert finding(found, "N-step gradient").answer is Answer.CERTIFIED
    assert any(entry["why"] == "its truth was not certified" for entry in found.not_run)


def test_map_with_no_fixed_point_that_cannot_be_refuted_is_undecided() -> None:
    found = certify(scalar(lambda z, x: z + torch.exp(-100 * z * z) * x), **QUICK)
    assert finding(found, "fixed point").answer is Answer.UNDECIDED
    assert "start nearer to one" in finding(found, "fixed point").sentence


def test_map_that_is_not_finite_at_its_start_is_undecided_and_says_so() -> None:
    found = certify(scalar(lambda z, x: torch.log(z - 5) + x), max_bits=256, **QUICK)
    assert "f(z0) is not finite" in finding(found, "fixed point").sentence
    assert "not finite at a state" in finding(found, "N-step gradient").sentence
    assert found.answer is Answer.UNDECIDED


def test_fixed_point_on_a_kink_is_undecided_and_says_so() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + 0.0 * x, start=1.0), **QUICK)
    assert finding(found, "fixed point").answer is Answer.UNDECIDED
    assert "kink" in finding(found, "fixed point").sentence


def test_fixed_point_beside_a_kink_is_told_from_it_at_more_bits() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + x, start=1.0, x=2.0**-180), **QUICK)
    assert finding(found, "fixed point").answer is Answer.CERTIFIED
    assert found.bits > 180


def test_step_exactly_on_a_kink_is_counted_and_not_refuted() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + x), **QUICK)
    assert found.ties > 0
    assert finding(found, "N-step gradient confirmed").answer is Answer.UNDECIDED
    assert "exactly on a kink" in finding(found, "N-step gradient confirmed").sentence


def test_branch_that_is_not_taken_may_leave_its_domain() -> None:
    found = certify(scalar(lambda z, x: 0.3 * torch.where(z + x > 0, (z + x).log(), z + x - 2), x=-0.5), **QUICK)
    assert finding(found, "implicit gradient confirmed").answer is Answer.CERTIFIED
    assert finding(found, "N-step gradient confirmed").answer is Answer.CERTIFIED


def test_point_at_the_edge_of_the_domain_is_neither_confirmed_nor_refuted(tmp_path: Path) -> None:
    z0, x = torch.zeros(1, 2, dtype=F64), torch.tensor([[0.0, 1.0]], dtype=F64)
    found = certify((lambda z, x: 0.25 * z + x.pow(1.5), z0, x), **QUICK)
    for claim in ("implicit gradient confirmed", "N-step gradient confirmed"):
        assert finding(found, claim).answer is Answer.UNDECIDED
        assert "edge of its domain" in finding(found, claim).sentence
    path = tmp_path / "certificate.json"
    found.write(path)
    assert read_certificate(path)["answer"] == "undecided"


def test_singular_fixed_point_is_undecided() -> None:
    found = certify(scalar(lambda z, x: z - z**3 * x, start=0.0), **QUICK)
    assert finding(found, "fixed point").answer is Answer.UNDECIDED
    assert "singular" in finding(found, "fixed point").sentence


def test_precision_rises_and_gives_up_in_words() -> None:
    def chaotic(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(8 * z) + 0 * x

    low = certify(scalar(chaotic, start=0.3), beta=0.9, num_steps=100, digits=20, dtypes=(), max_bits=131)
    assert finding(low, "N-step gradient").answer is Answer.UNDECIDED
    assert "given up at 131 bits" in finding(low, "N-step gradient").sentence
    high = certify(scalar(chaotic, start=0.3), beta=0.9, num_steps=100, digits=20, dtypes=(), max_bits=4096)
    assert finding(high, "N-step gradient").answer is Answer.CERTIFIED
    assert high.bits > 131


class Straight(torch.autograd.Function):
    """tanh with the derivative of the identity: a backward that is not the derivative of its forward."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        return grad_outputs[0]


def test_wrong_backward_is_refuted_by_differences() -> None:
    found = certify(scalar(lambda z, x: 0.5 * Straight.apply(z) + x), **QUICK)  # type: ignore[arg-type]
    assert finding(found, "N-step gradient confirmed").answer is Answer.REFUTED
    assert "not that of the function" in finding(found, "N-step gradient confirmed").sentence


def test_each_dtype_is_compared_with_the_problem_that_it_stores() -> None:
    weight = torch.tensor(0.3, dtype=F64, requires_grad=True)  # bfloat16 stores 0.30078125
    source: Triple = (
        lambda z, x: weight * torch.tanh(z) + x,
        torch.tensor([[0.0]], dtype=F64),
        torch.tensor([[0.5]], dtype=F64),
    )
    found = certify(source, num_steps=4, digits=20)
    worst = {row.dtype: row for row in found.bits_right if row.adjoint == "reversible" and row.worst}
    assert worst["float64"].bits > 45
    assert worst["float32"].bits > 18
    # against the unrounded problem no more than 8 bits of bfloat16 could come out, and some leaf would have 6
    assert worst["bfloat16"].bits > 6.5
    assert {row.leaf for row in found.bits_right} == {"z1", "z0", "args", "captured.weight"}


def test_tensors_of_several_dtypes_are_also_run_as_they_are() -> None:
    weight = torch.tensor([[0.25]], dtype=torch.float32, requires_grad=True)
    source: Triple = (
        lambda z, x: torch.tanh(z.float() @ weight).double() + x,
        torch.zeros(1, 1, dtype=F64),
        torch.full((1, 1), 0.3, dtype=F64),
    )
    found = certify(source, num_steps=2, digits=15, dtypes=(F64,))
    (row,) = (row for row in found.bits_right if row.worst and row.adjoint == "reversible")
    assert (row.dtype, row.stored) == ("as given", 24)
    assert row.bits > 20
    # Cast to float64 altogether, the weight does not fit f's own cast, and that is said.
    assert any(entry["what"] == "float64 reversible on cpu" for entry in found.not_run)


def test_result_without_a_device_is_listed_in_words() -> None:
    found = certify(scalar(lambda z, x: 0.5 * z + x), devices=("cpu", "xpu"), **QUICK)
    assert {"what": "float64 on xpu", "why": "there is no such device here"} in found.not_run


def batched() -> Triple:
    torch.manual_seed(0)
    cell = nn.Linear(3, 3, dtype=F64)
    return lambda z, x: 0.3 * torch.tanh(cell(z)) + x, torch.zeros(6, 3, dtype=F64), torch.randn(6, 3, dtype=F64)


def test_sub_batch_is_certified_and_named() -> None:
    found = certify(batched(), samples=2, **QUICK)
    assert found.scope == "the first 2 of 6 samples"
    assert found.state == {"z0": [2, 3]}
    assert certify(batched(), max_components=9, **QUICK).scope == "the first 3 of 6 samples"


def test_sub_batch_of_samples_that_see_each_other_is_refused() -> None:
    with pytest.raises(SourceError, match="another problem"):
        certify((lambda z, x: z - z.mean(0) + x, torch.randn(4, 2), torch.randn(4, 2)), samples=2)


def test_samples_that_see_each_other_are_certified_as_one_block() -> None:
    source: Triple = (
        lambda z, x: 0.3 * z.sin() + 0.2 * z.mean(0) + x,
        torch.zeros(2, 2, dtype=F64),
        torch.ones(2, 2, dtype=F64),
    )
    found = certify(source, **QUICK)
    assert found.answer is Answer.CERTIFIED
    assert found.proofs[0]["fixed_point"]["samples"] == 1
    assert certify(batched(), **QUICK).proofs[0]["fixed_point"]["samples"] == 6


def test_samples_that_couple_only_away_from_the_fixed_point_are_not_split() -> None:
    # The coupling z_other^2 vanishes with its derivative at z* = 0 and nowhere else.
    source: Triple = (
        lambda z, x: 0.3 * z + x * z.flip(0) ** 2,
        torch.full((2, 2), 0.1, dtype=F64),
        torch.ones(2, 2, dtype=F64),
    )
    found = certify(source, **QUICK)
    assert (
        finding(found, "fixed point").answer is not Answer.CERTIFIED or found.proofs[0]["fixed_point"]["samples"] == 1
    )


def test_state_too_wide_keeps_its_n_step_certificate() -> None:
    found = certify(batched(), max_width=2, **QUICK)
    assert "not attempted: 3 components per sample" in finding(found, "fixed point").sentence
    assert finding(found, "N-step gradient").answer is Answer.CERTIFIED


def test_state_too_large_gets_one_direction() -> None:
    found = certify(batched(), samples=1, max_components=2, **QUICK)
    assert found.scope.startswith("one direction: the state has 3 components")
    assert finding(found, "N-step directional derivative").answer is Answer.CERTIFIED
    assert "not attempted" in finding(found, "fixed point").sentence
    assert found.answer is Answer.UNDECIDED
    assert found.confirmations[0]["digits"] > 12
    # The gradient of the whole certificate, along the same direction, is the same number.
    whole = certify(batched(), samples=1, **QUICK)
    (along,) = (row["certified"] for row in whole.confirmations if row["claim"] == "N-step gradient")
    assert arb(along).overlaps(arb(found.confirmations[0]["certified"]))


def test_direction_over_a_kink_is_undecided() -> None:
    source: Triple = (lambda z, x: 0.5 * torch.relu(z) + 0 * x, torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    found = certify(source, max_components=1, **QUICK)
    assert "exactly on a kink" in finding(found, "N-step directional derivative").sentence
    assert not found.proofs


def test_unused_leaf_has_a_certified_zero_gradient() -> None:
    source: Triple = (
        lambda z, args: 0.5 * z + args["x"],
        torch.ones(1, 1, dtype=F64),
        {"x": torch.ones(1, 1, dtype=F64), "w": torch.ones(2, dtype=F64)},
    )
    found = certify(source, **QUICK)
    assert found.values["implicit"]["args.w"] == ["0", "0"]
    assert all(row.bits == math.inf for row in found.bits_right if row.leaf == "args.w")


def test_pytree_state_is_certified() -> None:
    source: Triple = (
        lambda z, args: {"a": 0.5 * torch.tanh(z["b"]) + args, "b": 0.25 * z["a"]},
        {"a": torch.zeros(2, dtype=F64), "b": torch.ones(2, dtype=F64)},
        torch.ones(2, dtype=F64),
    )
    found = certify(source, **QUICK)
    assert found.answer is Answer.CERTIFIED
    assert {row.leaf for row in found.bits_right if row.leaf.startswith("z1")} == {"z1.a", "z1.b"}


def test_random_and_unsupported_functions_raise_their_own_errors() -> None:
    with pytest.raises(RandomOperationError):
        certify(scalar(lambda z, x: z + torch.randn_like(z)))
    with pytest.raises(UnsupportedOperationError, match=r"aten\.atan\.default.*test_certificate_findings"):
        certify(scalar(lambda z, x: torch.atan(z) * 0.5 + x))


def raising() -> Any:
    raise RuntimeError("no weights here")


FACTORY_MODULE = """
import torch
value = 3
def good():
    return (lambda z, x: 0.5 * z + x), torch.zeros(1, 1), torch.ones(1, 1)
def pair():
    return good()[:2]
def whole():
    return (lambda z, x: z), torch.zeros(1, dtype=torch.int64), ()
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no colon", "MODULE:FACTORY"),
        ("no_such_module_anywhere:make", "there is no module no_such_module_anywhere"),
        ("certificate_factories:missing", "has no missing; it has good, pair, whole"),
        ("certificate_factories:value", "a factory is a function"),
        ("certificate_factories:pair", "gives a tuple of 2"),
        ("certificate_factories:whole", "z0 of certificate_factories:whole is not a floating tensor"),
        (raising, "the factory raising raised RuntimeError: no weights here"),
        (3, "cannot be certified"),
        ((1, 2, 3), "must be callable as function"),
    ],
)
def test_bad_source_is_refused_in_one_sentence(
    given: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "certificate_factories.py").write_text(FACTORY_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SourceError, match=message) as caught:
        source_from(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.0}, "cannot be undone"),
        ({"beta": math.nan}, "in \\(0, 2\\)"),
        ({"num_steps": -1}, "at least 0"),
        ({"num_steps": 2.0}, "must be an int"),
        ({"digits": 0}, "at least 1"),
        ({"digits": 1000}, "raise max_bits"),
        ({"samples": 0}, "at least 1"),
        ({"dtypes": (torch.int64,)}, "not floating"),
    ],
)
def test_bad_setting_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Settings(**options)


def test_cotangent_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="cotangent_z does not look like z0"):
        certify(scalar(lambda z, x: 0.5 * z + x), cotangent_z=torch.ones(3), **QUICK)


def balls(*values: float, radius: float = 0.0) -> Any:
    return filled([arb(value, radius) for value in values], (len(values),))


def test_bits_right_counts_the_worst_component_against_the_greatest() -> None:
    row = bits_right("w", np.array([1.0, 4.0, 2.0 + 2.0**-8]), balls(1.0, 4.0, 2.0))
    assert math.isclose(row.bits, 10.0, rel_tol=1e-12)
    assert row.index == (2,)


def test_bits_right_counts_the_radius_as_error() -> None:
    assert bits_right("w", np.array([1.0]), balls(1.0, radius=2.0**-20)).bits < 20.01


def test_bits_right_of_exact_nan_and_missing_results() -> None:
    assert bits_right("w", np.array([1.0]), balls(1.0)).bits == math.inf
    broken = bits_right("w", np.array([1.0, math.nan]), balls(1.0, 1.0))
    assert broken.bits == -math.inf
    assert broken.index == (1,)
    assert worst_of((bits_right("v", np.array([1.0]), balls(1.0)), broken)) is broken
    with pytest.raises(KeyError, match="not taken for zero"):
        all_bits_right({}, {"w": balls(1.0)})
    with pytest.raises(ValueError, match="shape"):
        bits_right("w", np.array([1.0]), balls(1.0, 2.0))


def test_file_is_strict_json_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    found = certify(scalar(lambda z, x: 0.5 * z + x), **QUICK)
    found.write(path)
    assert list(tmp_path.iterdir()) == [path]
    parsed = read_certificate(path)
    assert parsed["answer"] == "certified"
    assert parsed["graph"]["nodes"]
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    path.write_text(path.read_text().replace('"version":1', '"version":99', 1))
    with pytest.raises(CertificateError, match="version 1"):
        read_certificate(path)
    path.write_text("{")
    with pytest.raises(CertificateError, match="not JSON"):
        read_certificate(path)
    with pytest.raises(CertificateError, match="cannot be read"):
        read_certificate(tmp_path / "none.json")


def test_progress_names_the_stages() -> None:
    stages: list[str] = []
    certify(scalar(lambda z, x: 0.5 * z + x), progress=stages.append, **QUICK)
    assert stages[0] == "recording the function"
    assert "proving the fixed point" in stages


def test_constant_that_is_taken_from_the_dtype_is_that_of_the_run() -> None:
    torch.manual_seed(0)
    norm = nn.RMSNorm(3)  # its eps is that of the dtype, which decides at z0 = 0

    def function(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.1 * norm(z) + x

    found = certify((function, torch.zeros(1, 3), torch.rand(1, 3)), num_steps=2, digits=15)
    worst = {row.dtype: row for row in found.bits_right if row.adjoint == "reversible" and row.worst}
    assert worst["float64"].bits > 40
    assert worst["float32"].bits > 15
    assert [proof.get("stored_as") for proof in found.proofs] == [None, None, "float64", "float64", *["bfloat16"] * 2]
