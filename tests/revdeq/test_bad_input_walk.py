"""Bad input to every parameter of every solver, adjoint, cell and layer: one sentence that names what was given."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import revdeq.adjoint
import revdeq.nn
import revdeq.solver
from revdeq import ImplicitAdjoint, Relaxed, UnrolledAdjoint
from revdeq.nn import Dense


COUNT: list[Any] = [0, -1, 1.5, "2", True]
POSITIVE: list[Any] = [0.0, -1.0, math.nan, math.inf, "1", True]

BAD: dict[str, list[Any]] = {
    "activation": [3, "relu"],
    "adjoint": ["implicit", ImplicitAdjoint, Relaxed(0.5)],
    "arithmetic": ["exact", 3, None],
    "atol": [-1.0, math.nan, math.inf, "1", True],
    "batch_dims": [2, -1, 1.0, "1", True],
    "beta": [0.0, 2.0, -0.5, math.nan, None, "fast", True],
    "causal": [1, None, "yes"],
    "channels": [*COUNT, None],
    "compile": [1, None, "yes"],
    "contraction_constant": POSITIVE,
    "device": ["nowhere"],
    "dropout": [1.0, -0.1, math.nan, None, "0.1", True],
    "dtype": [torch.int64, torch.complex64, "float32", 3],
    "function": [3, None, "tanh"],
    "generator": [3, "cpu"],
    "groups": [*COUNT, 3, None],
    "has_aux": [True, "first", 3],
    "heads": [*COUNT, 3, None],
    "hidden": COUNT,
    "history": [*COUNT, None],
    "inner_channels": COUNT,
    "input_channels": COUNT,
    "input_width": COUNT,
    "kernel_size": [*COUNT, 2, None],
    "margin": POSITIVE,
    "max_steps": [-1, 2.0, "3", True],
    "name": [3, True, b"encoder"],
    "on_health": [3, "log"],
    "per_sample": [1, None, "yes"],
    "regularisation": [0.0, 1.0, math.nan, None, "1"],
    "restart": [*COUNT, None],
    "rtol": [-1.0, math.nan, math.inf, "1", True],
    "samples": [*COUNT, None],
    "segment": COUNT,
    "solver": ["anderson", Relaxed, UnrolledAdjoint()],
    "state_dtype": [torch.int64, torch.complex64, "float64"],
    "step_size": [*POSITIVE, None],
    "steps": [*COUNT, None],
    "throw": [1, None, "no"],
    "verify": [0, 1, None, "no"],
    "width": [*COUNT, None],
    "with_step": [1, None, "yes"],
    "z": [3, (), torch.zeros(2, dtype=torch.int64)],
}

# What else each needs, where it has no default; of sizes, what the bad ones of another parameter are measured against.
NEEDED: dict[str, dict[str, Any]] = {
    "Reversible": {"beta": 0.5},
    "DEQ": {"function": Dense(2), "rtol": 1e-3, "atol": 0.0},
    "MonotoneDEQ": {"width": 4},
    "Monotone": {"width": 4},
    "Dense": {"width": 4},
    "Transformer": {"width": 4},
    "Conv": {"channels": 8},
    "jacobian_penalty": {"function": lambda z, a: torch.tanh(z), "z": torch.zeros(2, 2)},
}

ANYTHING = {"args"}
"""Parameters that take anything."""


def walked() -> list[tuple[Callable[..., Any], str]]:
    """Return every public constructor or function of the three packages with each of its parameters."""
    found: list[tuple[Callable[..., Any], str]] = []
    for package in (revdeq.solver, revdeq.adjoint, revdeq.nn):
        for kind in vars(package).values():
            public = inspect.isclass(kind) or inspect.isfunction(kind)
            if not public or inspect.isabstract(kind) or getattr(kind, "_is_protocol", False):
                continue
            found += [(kind, name) for name in inspect.signature(kind).parameters if name not in ANYTHING]
    return found


def test_the_walk_reaches_everything():
    names = {getattr(kind, "__name__", "") for kind, _ in walked()}
    solvers = {"Anderson", "Broyden", "ForwardBackward", "GMRES", "PeacemanRachford", "Relaxed", "Reversible"}
    adjoints = {"CheckpointedAdjoint", "ImplicitAdjoint", "PhantomAdjoint", "ReversibleAdjoint"}
    assert names >= solvers | adjoints | NEEDED.keys()


@pytest.mark.parametrize(("kind", "name"), walked(), ids=lambda part: getattr(part, "__name__", str(part)))
def test_every_bad_value_is_refused_with_a_sentence_that_names_it(kind: Any, name: str):
    for value in BAD[name]:
        with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
            kind(**{**NEEDED.get(kind.__name__, {}), name: value})
        if name == "device":
            continue  # torch's own words
        assert isinstance(caught.value, TypeError | ValueError)
        said = str(caught.value)
        assert said.startswith((f"{name} is ", f"{name} holds ", f"{name} has ")), said
        assert said.endswith("."), said


def test_good_values_are_taken():
    for kind, _ in walked():
        kind(**NEEDED.get(getattr(kind, "__name__", ""), {}))


@pytest.mark.parametrize("beta", ["auto", "adaptive", ((0.5, 0.6), (0.7, 0.8))], ids=str)
def test_the_adjoint_equation_wants_one_beta(beta: Any):
    with pytest.raises(ValueError, match=r"the adjoint equation needs one number, such as Reversible\(0\.9\)"):
        ImplicitAdjoint(solver=revdeq.solver.Reversible(beta))


def test_the_adjoint_equation_is_not_compiled():
    with pytest.raises(ValueError, match="so give compile=False"):
        ImplicitAdjoint(solver=revdeq.solver.Reversible(0.9, compile=True))
