"""The study of cost: counts are exact, times are ratios to the floor of the same round, every line says what it is."""

from __future__ import annotations

import math

import pytest
import torch

from verify.studies.cost import (
    FLOOR,
    Plan,
    Workload,
    clocked,
    compiled_of,
    cost_curves,
    count,
    interleaved,
    methods_of,
    peers_of,
    plan_of,
)


STEPS = 3
TWICE = 2 * STEPS

# Evaluations of f in forward and backward, and VJPs. The implicit adjoint sees whether f repeats, evaluates it at z1,
# takes 2N iterations and one product for the last residual, and one that reaches the parameters.
EXPECTED = {
    "reversible": (2 * TWICE, TWICE),
    "unrolled": (TWICE, TWICE),
    "checkpointed": (2 * TWICE, TWICE),
    "checkpointed, segments": (2 * TWICE, TWICE),
    "implicit": (TWICE + 2, TWICE + 2),
    "phantom": (TWICE + 2, 1),
    "torch.utils.checkpoint": (2 * TWICE, TWICE),
}

FLAT = {"implicit", "phantom"}


@pytest.fixture(autouse=True)
def without_torchdeq(monkeypatch):
    """Make the tests the same whatever is installed."""
    monkeypatch.setattr("verify.studies.cost.peers.absent_peers", lambda: {"torchdeq": "left out"})


@pytest.fixture(scope="module")
def workload():
    return Workload(32, tokens=4, num_steps=STEPS)


def test_counts_of_every_pair_are_exact(workload):
    methods = [*methods_of(workload), *peers_of(workload)]
    assert len(methods) == 24
    assert len({method.name for method in methods}) == 24
    for method in methods:
        cost = count(workload, method)
        assert (cost.evaluations, cost.vjps) == EXPECTED[method.adjoint], method.name


def test_bytes_kept_by_the_fixed_point_adjoints_do_not_depend_on_the_steps(workload):
    deeper = Workload(32, tokens=4, num_steps=STEPS + 2)
    for few, many in zip(methods_of(workload), methods_of(deeper), strict=True):
        if few.solver not in ("reversible", "broyden"):
            continue
        slope = count(deeper, many).saved_bytes - count(workload, few).saved_bytes
        if few.adjoint in FLAT:
            assert slope == 0, few.name
        elif few.adjoint in ("unrolled", "checkpointed"):
            assert slope > 0, few.name


def test_the_checkpoint_written_by_hand_takes_the_very_steps(workload):
    (expected,) = (m for m in methods_of(workload) if m.name == "reversible, unrolled, float64")
    (by_hand,) = peers_of(workload)
    results = []
    for method in (expected, by_hand):
        final = method.forward(workload.cell)
        results.append((final.detach(), *workload.gradients(final)))
    # Both round the same sums to float32, in another order; 24 evaluations and VJPs of relative precision 2^-24.
    for g, e in zip(*results, strict=True):
        assert float((g - e).norm()) <= 2.0**-16 * float(e.norm())


def test_a_workload_is_the_same_in_every_run_and_leaves_the_global_seed(workload):
    state = torch.get_rng_state()
    again = Workload(32, tokens=4, num_steps=STEPS)
    assert torch.equal(again.x, workload.x)
    for a, b in zip(again.sources, workload.sources, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)


def test_ratios_are_taken_within_a_round():
    now = 0.0
    # A machine that becomes three times as slow in the second of three rounds.
    slowness = iter([1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0])

    def takes(seconds):
        def step():
            nonlocal now
            now += seconds * next(slowness)

        return clocked(step, torch.device("cpu"), lambda: now)

    found = interleaved({"floor": takes(2.0), "other": takes(3.0)}, rounds=3)
    assert found["floor"].ratio == 1.0
    assert found["other"].ratio == 1.5
    assert found["other"].spread == 0.0
    assert found["other"].median == 3.0
    assert found["other"].high == 9.0


def test_the_order_rotates():
    seen: list[str] = []

    def run(name):
        def runs():
            seen.append(name)
            return 1.0

        return runs

    interleaved({name: run(name) for name in "abc"}, rounds=3)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"


@pytest.mark.parametrize(
    ("runs", "rounds", "words"), [({"a": lambda: 1.0}, 2, "rounds is 2"), ({}, 3, "runs is empty")]
)
def test_timing_without_quartiles_is_refused(runs, rounds, words):
    with pytest.raises(ValueError, match=words):
        interleaved(runs, rounds=rounds)


def test_curves_name_every_method_and_promise_what_is_counted():
    curves = list(cost_curves(Plan((32,), 3, False, tokens=4, counted_steps=(1, 2))))
    for name in ("cost-evaluations", "cost-vjps", "cost-bytes"):
        lines = [curve for curve in curves if curve.name == name]
        assert len(lines) == 24
        promised = [curve for curve in lines if curve.predicted is not None]
        assert {curve.adjoint for curve in promised} == (set() if name == "cost-bytes" else {"reversible"})
        assert all(curve.predicted == curve.y for curve in promised)
    ratios = [curve for curve in curves if curve.name == "cost-ratio"]
    assert [curve.y for curve in ratios if curve.solver == FLOOR] == [(1.0,)]
    assert {(c.solver, c.adjoint) for c in ratios} >= {("relaxed", "implicit"), ("reversible", "unrolled")}
    assert all(math.isfinite(value) and value > 0 for curve in ratios for value in curve.y)
    assert all("1 thread" in c.y_name or "threads" in c.y_name for c in curves if c.name == "cost-seconds")


def test_only_the_small_widths_are_timed_in_quick():
    assert plan_of("quick").widths == (32, 128)
    assert plan_of("full").widths == plan_of("nightly").widths == (32, 128, 256, 512)


def test_compiled_methods_are_the_reversible_ones_named_apart(workload):
    compiled = compiled_of(workload)
    names = {method.name for method in methods_of(workload)}
    assert [method.state_dtype for method in compiled] == ["float32", "float64"]
    assert all(method.adjoint == "reversible, compiled" and method.name not in names for method in compiled)
