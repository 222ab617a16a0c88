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

from verify.certificate import Answer, Certificate, CertificateError, Failed, Finding, Settings, SourceError, certify
from verify.certificate.certificate import read_certificate
from verify.certificate.kernel.bits import bits_of
from verify.certificate.kernel.numbers import unpacked
from verify.certificate.source import source_from
from verify.reference.graph import RandomOperationError, UnsupportedOperationError, register, unregister


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


def test_fixed_point_on_a_kink_is_the_only_one_near() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + 0.0 * x, start=1.0), max_bits=256, **QUICK)
    assert finding(found, "fixed point").answer is Answer.CERTIFIED
    assert finding(found, "contraction").answer is Answer.CERTIFIED


def test_gradient_at_a_fixed_point_on_a_kink_is_undecided() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + x, start=0.0, x=0.0), max_bits=256, **QUICK)
    assert finding(found, "fixed point").answer is Answer.CERTIFIED
    assert finding(found, "implicit gradient").answer is Answer.UNDECIDED
    assert "kink in the direction of args" in finding(found, "implicit gradient").sentence


def test_gradient_beside_a_kink_is_told_from_it_at_more_bits() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + x, start=1.0, x=2.0**-180), **QUICK)
    assert finding(found, "implicit gradient").answer is Answer.CERTIFIED
    assert found.bits > 180


def test_step_exactly_on_a_kink_is_undecided_in_that_direction_alone() -> None:
    found = certify(scalar(lambda z, x: 0.5 * torch.relu(z) + x), max_bits=400, **QUICK)
    assert finding(found, "N-step gradient").answer is Answer.UNDECIDED
    assert "kink in the direction of z0" in finding(found, "N-step gradient").sentence
    assert finding(found, "N-step gradient confirmed").answer is Answer.CERTIFIED
    assert set(found.values["n_step"]) == {"args"}
    assert {row.leaf for row in found.bits_right if row.adjoint == "reversible"} == {"z1", "args"}


def test_tie_between_branches_of_equal_slope_is_no_kink() -> None:
    found = certify(scalar(lambda z, x: 0.5 * nn.functional.elu(z) + 0.25 * nn.functional.softplus(z) + x), **QUICK)
    assert found.answer is Answer.CERTIFIED


def test_comparison_of_equal_numbers_is_a_kink_only_for_the_leaves_that_move_it() -> None:
    # z0 = 0 hides w from the comparison, and moves it itself.
    w = torch.tensor(0.5, dtype=F64, requires_grad=True)
    source = scalar(lambda z, x: torch.where(w * z > 0, 0.5 * z, 0.25 * z) + w * x)
    found = certify(source, **QUICK)
    assert "in the direction of z0, or" in finding(found, "N-step gradient").sentence
    assert set(found.values["n_step"]) == {"args", "captured.w"}


def test_branch_that_is_not_taken_may_leave_its_domain() -> None:
    found = certify(scalar(lambda z, x: 0.3 * torch.where(z + x > 0, (z + x).log(), z + x - 2), x=-0.5), **QUICK)
    assert finding(found, "implicit gradient confirmed").answer is Answer.CERTIFIED
    assert finding(found, "N-step gradient confirmed").answer is Answer.CERTIFIED


def test_derivative_from_one_side_is_not_refuted(tmp_path: Path) -> None:
    z0, x = torch.zeros(1, 2, dtype=F64), torch.tensor([[0.0, 1.0]], dtype=F64)
    found = certify((lambda z, x: 0.25 * z + x.pow(1.5), z0, x), **QUICK)
    assert found.answer is not Answer.REFUTED
    path = tmp_path / "certificate.json"
    found.write(path)
    assert read_certificate(path)["answer"] == found.answer.value


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


def test_wrong_backward_is_refuted_and_its_gradient_is_called_torchs() -> None:
    found = certify(scalar(lambda z, x: 0.5 * Straight.apply(z) + x), **QUICK)  # type: ignore[arg-type]
    for claim in ("implicit gradient", "N-step gradient"):
        assert finding(found, f"{claim} confirmed").answer is Answer.REFUTED
        assert "not that of the function" in finding(found, f"{claim} confirmed").sentence
        assert "return torch.tanh(z)" in finding(found, claim).sentence
        assert "that torch's backward defines" in finding(found, claim).sentence
    # torch is held to what its own backward defines: K = 1/2 everywhere.
    assert all(row.bits > 45 for row in found.bits_right if row.adjoint == "reversible")
    assert found.contraction is not None
    assert found.contraction["lower"] < 0.5 * (1 - math.tanh(0.5) ** 2) + 1e-3


def test_jump_in_the_neighbourhood_leaves_the_contraction_undecided() -> None:
    found = certify(scalar(lambda z, x: 0.5 * z + 0.3 * (z > 0.403).to(F64) + x, x=0.2), **QUICK)
    assert finding(found, "fixed point").answer is Answer.CERTIFIED
    assert finding(found, "contraction").answer is Answer.UNDECIDED
    assert "a comparison in f is not decided" in finding(found, "contraction").sentence


def test_part_that_is_detached_is_seen_by_the_contraction_and_named() -> None:
    def function(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.25 * z + (0.25 * z).detach() + x

    found = certify(scalar(function), **QUICK)
    assert found.contraction is not None
    assert found.contraction["lower"] >= 0.4999
    assert "(0.25 * z).detach()" in finding(found, "implicit gradient").sentence
    assert finding(found, "implicit gradient confirmed").answer is Answer.REFUTED


def test_expansion_in_the_neighbourhood_refutes_the_contraction() -> None:
    found = certify(scalar(lambda z, x: 0.5 * z + 1e6 * (z - 0.25) ** 3 + x, start=0.25, x=0.125), **QUICK)
    assert finding(found, "contraction").answer is Answer.REFUTED
    assert "at a point there" in finding(found, "contraction").sentence


def test_rule_that_reads_floating_values_is_not_believed_over_a_box() -> None:
    @register("aten.i0.default")
    def rule(ops: Any, x: Any) -> Any:
        return ops.convert(2 * np.arctan(ops.to_float64(x)))

    try:
        found = certify(scalar(lambda z, x: 0.25 * torch.i0(0.5 * z) + x), **QUICK)
    finally:
        unregister("aten.i0.default")
    assert {entry.answer for entry in found.findings} == {Answer.UNDECIDED}


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
    assert len(found.proofs[0]["fixed_point"]["inverses"]) == 1
    assert len(certify(batched(), **QUICK).proofs[0]["fixed_point"]["inverses"]) == 6


def test_samples_that_couple_only_away_from_the_fixed_point_are_not_split() -> None:
    # The coupling z_other^2 vanishes with its derivative at z* = 0 and nowhere else.
    source: Triple = (
        lambda z, x: 0.3 * z + x * z.flip(0) ** 2,
        torch.full((2, 2), 0.1, dtype=F64),
        torch.ones(2, 2, dtype=F64),
    )
    found = certify(source, **QUICK)
    if finding(found, "fixed point").answer is Answer.CERTIFIED:
        assert len(found.proofs[0]["fixed_point"]["inverses"]) == 1


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
    assert "torch's float64 gradient agrees with it in 1" in finding(found, "N-step directional derivative").sentence
    # The gradient of the whole certificate, along the same direction, is the same number.
    whole = certify(batched(), samples=1, **QUICK)
    way = unpacked(found.proofs[0]["direction"]["way"])
    gradient = [arb(text) for leaf in ("z0", *whole.said["leaves"]) for text in whole.values["n_step"].pop(leaf, ())]
    along = sum((x * y for x, y in zip(gradient, way, strict=True)), arb(0))
    assert along.overlaps(arb(found.proofs[0]["derivative"]))


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
    with pytest.raises(UnsupportedOperationError, match=r"aten\.i0\.default.*test_certificate_findings"):
        certify(scalar(lambda z, x: torch.i0(z) * 0.5 + x))


def test_number_that_is_not_finite_is_named() -> None:
    weight = torch.tensor([[1.0, math.nan]], dtype=F64)
    with pytest.raises(SourceError, match=r"captured\.weight\[0, 1\] is nan"):
        certify((lambda z, x: 0.5 * z * weight + x, torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64)))
    with pytest.raises(SourceError, match=r"z0\[0, 0\] is inf"):
        certify(scalar(lambda z, x: 0.5 * z + x, start=math.inf))


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


def row_of(got: list[float], truth: list[arb]) -> dict[str, Any]:
    return bits_of("w", got, truth, [len(got)], None)


def test_bits_right_counts_the_worst_component_against_the_greatest() -> None:
    row = row_of([1.0, 4.0, 2.0 + 2.0**-8], [arb(1), arb(4), arb(2)])
    assert row["bits"] == 10.0 or row["bits"] == 9.99
    assert row["index"] == [2]


def test_bits_right_counts_the_radius_as_error() -> None:
    assert row_of([1.0], [arb(1, 2.0**-20)])["bits"] <= 20


def test_bits_right_of_exact_and_nan_results() -> None:
    assert row_of([1.0], [arb(1)])["bits"] == "inf"
    broken = row_of([1.0, math.nan], [arb(1), arb(1)])
    assert (broken["bits"], broken["index"], broken["got"]) == ("-inf", [1], "nan")
    with pytest.raises(Failed, match="has 1 numbers, not 2"):
        row_of([1.0], [arb(1), arb(2)])


def test_leaf_that_vanishes_is_measured_against_all_leaves() -> None:
    # The softmax of a row does not change with a number that is added to all of it.
    b = torch.tensor(0.25, dtype=F64, requires_grad=True)
    source = scalar(lambda z, x: 0.3 * torch.softmax(torch.cat([z, x], 1) + b, 1)[:, :1] + x)
    found = certify(source, **QUICK)
    assert found.answer is Answer.CERTIFIED
    (row,) = (row for row in found.bits_right if row.leaf == "captured.b" and row.adjoint == "reversible")
    assert row.bits > 45


def test_file_is_strict_json_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    found = certify(scalar(lambda z, x: 0.5 * z + x), **QUICK)
    found.write(path)
    assert list(tmp_path.iterdir()) == [path]
    parsed = read_certificate(path)
    assert parsed["answer"] == "certified"
    assert parsed["graph"]["nodes"]
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    path.write_text(path.read_text().replace('"version":2', '"version":99', 1))
    with pytest.raises(CertificateError, match="version 2"):
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
    assert [problem["stored_as"] for problem in found.said["problems"]] == ["", "float64", "bfloat16"]
    assert [proof["problem"] for proof in found.proofs] == [0, 0, 1, 1, 2, 2]
