"""What a certificate costs: balls against mpmath, and how the cost grows with width, steps and digits.

    python benchmarks/certificate_cost.py --out FOLDER [--quick]

writes certificate_cost.json (a row per measurement) and certificate_cost.svg into the folder. Seconds depend on the
machine and are those of the processor, which a busy machine does not lengthen; the ratio of balls to mpmath is taken
within one run, the two alternating, the best of each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from verify.certificate import Settings, certify
from verify.certificate.posed import cotangents_of, joined
from verify.certificate.stages import fixed_point_stage, n_step_stage
from verify.reference.arithmetic import Multiprecision
from verify.reference.arithmetic.balls import Balls
from verify.reference.graph import Program, Traced, trace


Row = dict[str, Any]


def dense_cell(width: int, batch: int = 1) -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(width)
    layer = nn.Linear(width, width, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(0.9 * torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0])
    z0 = torch.zeros(batch, width, dtype=torch.float64)
    return lambda z, x: torch.tanh(layer(z) + x), z0, torch.randn(batch, width, dtype=torch.float64)


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


def best_of(count: int, *functions: Callable[[], Any]) -> list[float]:
    """The least time of each, the functions alternating."""
    times = [[0.0] * count for _ in functions]
    for turn in range(count):
        for number, function in enumerate(functions):
            began = time.process_time()
            function()
            times[number][turn] = time.process_time() - began
    return [min(found) for found in times]


def ratio_row(what: str, batch: int, digits: int, fast: float, slow: float) -> Row:
    return {
        "study": "balls against mpmath",
        "cell": "dense 64 x 64",
        "what": what,
        "batch": batch,
        "digits": digits,
        "balls_seconds": fast,
        "mpmath_seconds": slow,
        "ratio": slow / fast,
    }


def balls_against_mpmath(digits: int, count: int) -> list[Row]:
    """The ratio on a 64 x 64 dense cell, by the size of the batch: the product, the value, the pullback."""
    rows: list[Row] = []
    for batch in (1, 16, 64):
        traced = trace(*dense_cell(64, batch))
        fixed = {name: values for name, values in traced.arrays().items() if name != "z0"}
        generator = np.random.default_rng(0)
        at = {"z0": generator.normal(size=(batch, 64))}
        both = {**at, "cotangent": generator.normal(size=(batch, 64))}
        arithmetics = (Balls(int(np.ceil(digits * np.log2(10)))), Multiprecision(digits))
        weight = generator.normal(size=(64, 64))
        factors = [(ops.convert(at["z0"]), ops.convert(weight)) for ops in arithmetics]
        for _, matrix in factors:
            matrix.flags.writeable = False
        fast, slow = best_of(
            count,
            lambda f=factors, ops=arithmetics[0]: ops.matmul(*f[0]),
            lambda f=factors, ops=arithmetics[1]: ops.matmul(*f[1]),
        )
        rows.append(ratio_row("matrix product", batch, digits, fast, slow))
        for what, graph, inputs in (("value", traced.forward, at), ("pullback", traced.vjp, both)):
            programs = [Program(graph, ops, fixed) for ops in arithmetics]
            given = [{name: ops.convert(values) for name, values in inputs.items()} for ops in arithmetics]
            fast, slow = best_of(count, lambda p=programs, g=given: p[0](g[0]), lambda p=programs, g=given: p[1](g[1]))
            rows.append(ratio_row(what, batch, digits, fast, slow))
    return rows


def stages(source: Any, settings: Settings) -> Row:
    """Seconds of the fixed point with its implicit gradient, and of the N-step gradient, and the bits they took."""
    traced: Traced = trace(*source)
    cotangents = cotangents_of(traced, settings)
    flat = (joined(traced, cotangents[0]), joined(traced, cotangents[1]))
    began = time.process_time()
    fixed = fixed_point_stage(traced, settings, flat[0], with_contraction=False)
    between = time.process_time()
    steps = n_step_stage(traced, settings, flat, 1.0)
    ended = time.process_time()
    return {
        "digits": settings.digits,
        "num_steps": settings.num_steps,
        "fixed_point": fixed.findings[0].answer.value,
        "n_step": steps.findings[0].answer.value,
        "fixed_point_seconds": between - began,
        "n_step_seconds": ended - between,
        "bits": max(fixed.function.ops.bits, steps.function.ops.bits),
    }


def growth(quick: bool) -> list[Row]:
    """Cost of a dense cell's certificate as one of width, N and digits grows."""
    rows: list[Row] = []
    for width in (8, 16, 32, 64) if quick else (8, 16, 32, 64, 96, 128, 192):
        settings = Settings(num_steps=4, digits=30)
        rows.append({"study": "width", "value": width, **stages(dense_cell(width), settings)})
    for steps in (1, 4, 16) if quick else (1, 2, 4, 8, 16, 32, 64):
        settings = Settings(num_steps=steps, digits=30)
        rows.append({"study": "steps", "value": steps, **stages(dense_cell(32), settings)})
    for digits in (15, 50, 100) if quick else (15, 30, 50, 100, 200, 400):
        settings = Settings(num_steps=4, digits=digits, max_bits=8192)
        rows.append({"study": "digits", "value": digits, **stages(dense_cell(32), settings)})
    return rows


def whole_certificates(quick: bool) -> list[Row]:
    """Whole certificates, torch runs, confirmation and proofs included."""
    sources = {"dense 96": dense_cell(96)}
    if not quick:
        sources["dense 320"] = dense_cell(320)
        sources["attention, 8 tokens, width 32"] = attention_cell(8, 32)
    rows: list[Row] = []
    for name, source in sources.items():
        began = time.process_time()
        found = certify(source, num_steps=4)
        rows.append(
            {
                "study": "whole certificate",
                "cell": name,
                "answer": found.answer.value,
                "seconds": time.process_time() - began,
                "stages": found.seconds,
                "bits": found.bits,
            }
        )
    return rows


def draw(rows: list[Row], path: Path) -> None:
    """Seconds against width, steps and digits, on logarithmic axes."""
    import matplotlib.pyplot as plt

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
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows and the plot")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = balls_against_mpmath(50, 3 if given.quick else 7)
    for row in rows:
        print(f"{row['what']}, batch {row['batch']}: balls {row['ratio']:.1f} times faster than mpmath at 50 digits")
    rows += growth(given.quick)
    rows += whole_certificates(given.quick)
    for row in rows:
        if row["study"] == "whole certificate":
            print(f"{row['cell']}: {row['answer']} in {row['seconds']:.1f} s at {row['bits']} bits")
    (given.out / "certificate_cost.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, given.out / "certificate_cost.svg")


if __name__ == "__main__":
    main()
