"""What a certificate costs: balls against mpmath, and how the cost grows with width, steps and digits.

    python benchmarks/certificate_cost.py --out FOLDER [--quick]

writes certificate_cost.json (a row per measurement) and certificate_cost.svg into the folder. Seconds depend on the
machine and are those of the processor, which work on the same core still lengthens; the ratio of balls to mpmath is
taken within one run, the two alternating, the best of each.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from verify.certificate import Settings, certify
from verify.certificate.posed import cotangents_of, head_json
from verify.certificate.proof import task_of
from verify.certificate.stages import fixed_point_part, n_step_part
from verify.reference.arithmetic import Array, Multiprecision
from verify.reference.arithmetic.balls import Balls
from verify.reference.graph import Program, Traced, trace


Row = dict[str, Any]


def dense_cell(width: int, batch: int = 1) -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(width)
    layer = nn.Linear(width, width, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(0.9 * torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0])
    z0 = torch.zeros(batch, width, dtype=torch.float64)

    def cell(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(layer(z) + x)

    return cell, z0, torch.randn(batch, width, dtype=torch.float64)


class AttentionCell(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
        self.norm = nn.LayerNorm(width, dtype=torch.float64)
        self.linear = nn.Linear(width, width, dtype=torch.float64)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        mixed = self.attention(z, z, z, need_weights=False)[0]
        return 0.5 * self.norm(mixed + torch.tanh(self.linear(z)) + x)


def attention_cell(tokens: int, width: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(width)
    cell = AttentionCell(width)
    return cell, torch.zeros(1, tokens, width, dtype=torch.float64), torch.randn(1, tokens, width, dtype=torch.float64)


LEAST_TURN = 0.02
"""Seconds for which a function is repeated within one turn, so that a quick one is timed warm."""


def best_of(count: int, *functions: Callable[[], Any]) -> list[float]:
    """The least time of each, the functions alternating."""
    least = [float("inf")] * len(functions)
    for _ in range(count):
        for number, function in enumerate(functions):
            turn = time.process_time()
            while True:
                began = time.process_time()
                function()
                ended = time.process_time()
                least[number] = min(least[number], ended - began)
                if ended - turn > LEAST_TURN:
                    break
    return least


def n_step_gradient(linearised: Program, z: Array, weight: Array, num_steps: int) -> dict[str, Array]:
    """The gradient of <weight, z_N> at beta 1/2 in any arithmetic, as verify.certificate.n_step has it in balls."""
    ops = linearised.ops
    half = ops.convert(np.asarray(0.5))
    y = z
    visited: list[Program] = []

    def mixed(old: Array, point: Array) -> Array:
        visited.append(linearised.at({"z0": point}))
        return ops.multiply(half, ops.add(old, visited[-1].known["f"]))

    for _ in range(num_steps):
        y = mixed(y, z)
        z = mixed(z, y)
    p_z, p_y = weight, ops.convert(np.zeros(weight.shape))
    total: dict[str, Array] = {}

    def pulled(cotangent: Array) -> Array:
        parts = visited.pop()({"cotangent": ops.multiply(half, cotangent)})
        to_state = parts.pop("z0")
        del parts["f"]
        total.update({name: ops.add(total[name], part) if name in total else part for name, part in parts.items()})
        return to_state

    for _ in range(num_steps):
        q = ops.add(p_y, pulled(p_z))
        p_z = ops.add(ops.multiply(half, p_z), pulled(q))
        p_y = ops.multiply(half, q)
    return {"z0": ops.add(p_y, p_z), **total}


def balls_against_mpmath(digits: int, count: int) -> list[Row]:
    """The ratio on a dense cell of width 64, by the rows of its state: product, value, pullback, gradient of two steps.

    mpmath is taken at the digits asked, and beside it at twice as many: a reference has to carry its uncertainty, which
    mpmath gets by computing a second time, and balls bring along.
    """
    rows: list[Row] = []
    for batch in (1, 16, 64):
        traced = trace(*dense_cell(64, batch))
        product = trace(lambda z, w: z @ w, torch.zeros(batch, 64).double(), torch.zeros(64, 64).double())
        generator = np.random.default_rng(0)
        z, cotangent = generator.normal(size=(2, batch, 64))
        arithmetics = (Balls(int(np.ceil(digits * np.log2(10)))), Multiprecision(digits), Multiprecision(2 * digits))
        work: dict[str, list[Callable[[], Any]]] = {"product": [], "value": [], "pullback": [], "N = 2 gradient": []}
        for ops in arithmetics:
            fixed = {name: values for name, values in traced.arrays().items() if name != "z0"}
            forward, pullback = Program(traced.forward, ops, fixed), Program(traced.vjp, ops, fixed)
            linearised = Program(traced.linearised, ops, fixed)
            weighed = Program(product.forward, ops, {"args": generator.normal(size=(64, 64))})
            at, against = ops.convert(z), ops.convert(cotangent)
            work["product"].append(lambda f=weighed, at=at: f({"z0": at}))
            work["value"].append(lambda f=forward, at=at: f({"z0": at}))
            both = {"z0": at, "cotangent": against}
            work["pullback"].append(lambda f=pullback, both=both: f(both))
            work["N = 2 gradient"].append(
                lambda f=linearised, at=at, against=against: n_step_gradient(f, at, against, 2)
            )
        for what, functions in work.items():
            fast, slow, twice = best_of(count, *functions)
            rows.append(
                {
                    "study": "balls against mpmath",
                    "cell": "dense, width 64",
                    "what": what,
                    "batch": batch,
                    "digits": digits,
                    "balls_seconds": fast,
                    "mpmath_seconds": slow,
                    "mpmath_twice_digits_seconds": twice,
                    "ratio": slow / fast,
                    "ratio_with_uncertainty": (slow + twice) / fast,
                }
            )
    return rows


def ratio_table(rows: list[Row]) -> str:
    """The ratios as a Markdown table."""
    lines = [
        "| state | what | balls, ms | mpmath, ms | ratio | mpmath with its uncertainty, ms | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        both = row["mpmath_seconds"] + row["mpmath_twice_digits_seconds"]
        lines.append(
            f"| {row['batch']} x 64 | {row['what']} | {1e3 * row['balls_seconds']:.3g} | "
            f"{1e3 * row['mpmath_seconds']:.3g} | {row['ratio']:.1f} | {1e3 * both:.3g} | "
            f"{row['ratio_with_uncertainty']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def stages(source: Any, settings: Settings) -> Row:
    """Seconds of the fixed point with its implicit gradient, and of the N-step gradient, and the bits they took."""
    traced: Traced = trace(*source)
    task = task_of(traced, head_json(traced, settings, cotangents_of(traced, settings)))
    alone: dict[str, Any] = {"with_torch": False}
    fixed = fixed_point_part(task, settings, main=False, **alone)
    steps = n_step_part(task, settings, 1.0, **alone)
    of_point, of_steps = best_of(
        3,
        lambda: fixed_point_part(task, settings, main=False, **alone),
        lambda: n_step_part(task, settings, 1.0, **alone),
    )
    return {
        "digits": settings.digits,
        "num_steps": settings.num_steps,
        "fixed_point": fixed.proved is not None,
        "n_step": steps.proved is not None,
        "fixed_point_seconds": of_point,
        "n_step_seconds": of_steps,
        "bits": max(fixed.function.bits, steps.function.bits),
    }


def growth(quick: bool) -> list[Row]:
    """Cost of a dense cell's certificate as one of width, N and digits grows."""
    rows: list[Row] = []
    for width in (8, 16, 32, 64) if quick else (8, 16, 32, 64, 128, 192, 320):
        settings = Settings(num_steps=4, digits=30)
        rows.append({"study": "width", "value": width, **stages(dense_cell(width), settings)})
    for steps in (1, 4, 16) if quick else (1, 4, 16, 64, 256):
        settings = Settings(num_steps=steps, digits=30)
        rows.append({"study": "steps", "value": steps, **stages(dense_cell(32), settings)})
    for digits in (15, 50, 100) if quick else (15, 30, 100, 300, 1000):
        settings = Settings(num_steps=4, digits=digits, max_bits=8192)
        rows.append({"study": "digits", "value": digits, **stages(dense_cell(32), settings)})
    return rows


def growth_table(rows: list[Row]) -> str:
    """Cost against width, steps and digits as a Markdown table."""
    lines = ["| varied | value | bits | z* and implicit gradient, s | N-step gradient, s |", "|---|---|---|---|---|"]
    for row in rows:
        if row["study"] in ("width", "steps", "digits"):
            lines.append(
                f"| {row['study']} | {row['value']} | {row['bits']} | {row['fixed_point_seconds']:.3g} | "
                f"{row['n_step_seconds']:.3g} |"
            )
    return "\n".join(lines) + "\n"


def whole_certificates(quick: bool) -> list[Row]:
    """Whole certificates, torch runs and the comparison with its backward included."""
    sources = {"dense, width 96": dense_cell(96)}
    if not quick:
        sources["dense, width 320"] = dense_cell(320)
        sources["self-attention, 8 tokens, width 32"] = attention_cell(8, 32)
        sources["self-attention, 64 tokens, width 128"] = attention_cell(64, 128)
    rows: list[Row] = []
    for name, source in sources.items():
        began = time.process_time()
        found = certify(source, num_steps=4)
        rows.append(
            {
                "study": "whole certificate",
                "cell": name,
                "scope": found.scope.partition(":")[0],
                "components": sum(math.prod(shape) for shape in found.state.values()),
                "numbers in the gradient": sum(math.prod(shape) for shape in found.said["leaves"].values()),
                "answers": {finding.claim: finding.answer.value for finding in found.findings},
                "seconds": time.process_time() - began,
                "stages": found.said["seconds"],
                "bits": found.bits,
            }
        )
    return rows


def whole_table(rows: list[Row]) -> str:
    """Whole certificates as a Markdown table."""
    lines = [
        "| cell | scope | components | numbers in the gradient | proved | bits | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["study"] == "whole certificate":
            answers = list(row["answers"].values())
            lines.append(
                f"| {row['cell']} | {row['scope']} | {row['components']} | {row['numbers in the gradient']} | "
                f"{answers.count('certified')} of {len(answers)} claims | {row['bits']} | {row['seconds']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], path: Path) -> None:
    """Seconds against width, steps and digits, on logarithmic axes."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "certificate"
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
    labels = {
        "width": "width of a dense cell, 30 digits, 4 steps",
        "steps": "steps N, width 32, 30 digits",
        "digits": "digits asked, width 32, 4 steps",
    }
    for axis, (study, label) in zip(axes, labels.items(), strict=True):
        chosen = [row for row in rows if row["study"] == study]
        values = [row["value"] for row in chosen]
        axis.loglog(values, [row["fixed_point_seconds"] for row in chosen], "o-", label="z* and implicit gradient")
        axis.loglog(values, [row["n_step_seconds"] for row in chosen], "s--", label="N-step gradient")
        axis.set_xlabel(label)
        axis.set_xticks(values, [str(value) for value in values])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of one core")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows and the plot")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = balls_against_mpmath(50, 3 if given.quick else 7)
    print(ratio_table(rows))
    rows += growth(given.quick)
    print(growth_table(rows))
    rows += whole_certificates(given.quick)
    print(whole_table(rows))
    (given.out / "certificate_cost.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, given.out / "certificate_cost.svg")


if __name__ == "__main__":
    main()
