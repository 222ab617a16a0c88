"""A training step of each method against the floor, as ratios from one run; peers run in turns with ours.

    python -m benchmarks.training_step [--widths 32 128 256 512] [--every-pair] [--jax-python PYTHON] [--out rows.json]

The floor is 2N evaluations of the cell without a graph and 2N evaluations with a VJP each: what any method must do that
rebuilds its states. See benchmarks/README.md for the peers.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.jax_peer import FLOOR as JAX_FLOOR, STEP as JAX_STEP, JaxPeer
from verify.studies.cost import (
    FLOOR,
    Method,
    Timing,
    Workload,
    absent_peers,
    clocked,
    compiled_of,
    count,
    interleaved,
    methods_of,
    peers_of,
    training_steps,
)


# The largest ratio of the reversible step to the floor that the project asks of itself, by width.
TARGETS = {32: 1.15, 128: 1.05, 256: 1.05, 512: 1.05}

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def main() -> None:
    """Time, print a table, and write the rows."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows = [row for width in options.widths for row in _rows_of(width, options, device)]
    absent = absent_peers()
    if options.jax_python is None:
        absent |= {"JAX library revdeq": "give --jax-python the interpreter of its environment"}
    document = {
        "schema": "revdeq-training-step",
        "version": 2,
        "environment": _environment(options, device),
        "rows": rows,
        "not_measured": absent,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(_table(rows))
    for name, why in absent.items():
        print(f"not measured: {name}: {why}")


def _rows_of(width: int, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    workload, deeper = (
        Workload(width, options.batch, options.tokens, steps, options.beta, device)
        for steps in (options.steps, options.steps + 1)
    )
    methods, deeper_methods = (
        [m for m in (*methods_of(w), *peers_of(w)) if m.main or options.every_pair] for w in (workload, deeper)
    )
    clock = CLOCKS[options.clock]
    shared: dict[str, Any] = {"width": width, "batch": options.batch, "tokens": options.tokens, "N": options.steps}
    with contextlib.ExitStack() as stack:
        compiled = compiled_of(workload) if options.compile else []
        steps = training_steps(workload, [*methods, *compiled])
        runs = {name: clocked(step, device, clock) for name, step in steps.items()}
        rows: list[dict[str, Any]] = []
        if options.jax_python is not None:
            peer = stack.enter_context(
                JaxPeer(options.jax_python, workload, threads=options.threads, clock=options.clock)
            )
            runs |= peer.runs()
            z1 = methods[0].forward(workload.cell)
            differences = peer.differences(z1, workload.gradients(z1), workload)
            rows.append({"method": JAX_STEP, **shared, **peer.said, "relative_differences": differences})
        timings = interleaved(runs, rounds=options.rounds)
    if rows:
        rows[0]["ratio_to_own_floor"] = timings[JAX_STEP].median / timings[JAX_FLOOR].median
    for name, timing in timings.items():
        row = {"method": name, **shared, **_numbers(timing)}
        if name.startswith("reversible, reversible, ") and "bitwise" not in name:
            row["target"] = TARGETS.get(width)
        rows.append(row)
    by_name = {row["method"]: row for row in rows if "median_seconds" in row}
    for method, same in zip(methods, deeper_methods, strict=True):
        by_name[method.name] |= _counts(workload, method, deeper, same)
    print(f"width {width} done", file=sys.stderr, flush=True)
    return rows


def _counts(workload: Workload, method: Method, deeper: Workload, same: Method) -> dict[str, int]:
    cost, more = count(workload, method), count(deeper, same)
    return {
        "evaluations": cost.evaluations,
        "vjps": cost.vjps,
        "saved_bytes": cost.saved_bytes,
        "saved_bytes_per_step": more.saved_bytes - cost.saved_bytes,
    }


def _numbers(timing: Timing) -> dict[str, float]:
    return {
        "median_seconds": timing.median,
        "low_seconds": timing.low,
        "high_seconds": timing.high,
        "ratio_to_floor": timing.ratio,
        "ratio_spread": timing.spread,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ("width", "method", "ms", "of the floor", "+-", "target", "f", "VJPs", "kept kB", "kept kB a step")
    lines: list[tuple[str, ...]] = [heads]
    for row in rows:
        if "relative_differences" in row:
            worst = max(row["relative_differences"].values())
            said = f"state and gradients differ from ours by at most {worst:.1e}, relative; it takes"
            own = f"{row['ratio_to_own_floor']:.3f} of its own floor"
            lines.append((str(row["width"]), f"{row['method']}: {said} {own}", *("",) * 8))
            continue
        lines.append(
            (
                str(row["width"]),
                row["method"],
                f"{1e3 * row['median_seconds']:.2f}",
                f"{row['ratio_to_floor']:.3f}",
                f"{row['ratio_spread']:.3f}",
                *(_cell(row, key) for key in ("target", "evaluations", "vjps", "saved_bytes", "saved_bytes_per_step")),
            )
        )
    widths = [max(len(line[i]) for line in lines if i != 1 or line[2]) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 1 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if key.startswith("saved"):
        return f"{value / 1024:.1f}"
    return f"{value:g}"


def _environment(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "threads": options.threads,
        "clock": options.clock,
        "rounds": options.rounds,
        "beta": options.beta,
        "floor": FLOOR,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step", description="Time a training step of each method."
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 256, 512], help="widths of the cell")
    parser.add_argument("--batch", type=int, default=1, help="samples")
    parser.add_argument("--tokens", type=int, default=448, help="tokens a sample (the RevDEQ paper's sequence length)")
    parser.add_argument("--steps", type=int, default=4, help="N, the steps of the reversible solve")
    parser.add_argument("--beta", type=float, default=0.5, help="relaxation parameter")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds, at least 3")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, and processors of JAX")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="process: for one thread, busy machines")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--every-pair", action="store_true", help="every solver with every adjoint")
    parser.add_argument("--compile", action="store_true", help="with the half step compiled too (needs a C++ compiler)")
    parser.add_argument("--jax-python", default=None, help="interpreter with jax, equinox and the JAX package revdeq")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
