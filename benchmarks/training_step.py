"""A training step of each method against the floor, as ratios from one run.

    python -m benchmarks.training_step [--widths 32 128 256 512] [--out rows.json] [--peer-rows jax.json]

The floor is 2N evaluations of the cell without a graph and 2N evaluations with a VJP each: what any method must do that
rebuilds its states. Rows of peers that live in another environment (see benchmarks/jax_step.py) are read from files.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods import Workload, methods, saved_bytes
from benchmarks.timing import Timing, interleaved
from revdeq import __name__ as package


# The largest ratio of the reversible step to the floor that the project asks of itself, by width.
TARGETS = {32: 1.15, 128: 1.05, 256: 1.05, 512: 1.05}

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def main() -> None:
    """Time, print a table, and write the rows."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows: list[dict[str, Any]] = []
    for width in options.widths:
        rows += _rows_of(width, options, device)
    for path in options.peer_rows:
        rows += json.loads(path.read_text())["rows"]
    document = {"schema": f"{package}-training-step", "version": 1, "environment": _environment(device), "rows": rows}
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(_table(rows))


def _rows_of(width: int, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    workload = Workload(width, options.batch, options.tokens, options.steps, options.beta, device)
    deeper = Workload(width, options.batch, options.tokens, options.steps + 1, options.beta, device)
    found, deeper_found = methods(workload), methods(deeper)
    timings = interleaved(found.steps(), rounds=options.rounds, device=device, clock=CLOCKS[options.clock])
    shared: dict[str, Any] = {
        "width": width,
        "batch": options.batch,
        "tokens": options.tokens,
        "num_steps": options.steps,
        "beta": options.beta,
        "rounds": options.rounds,
        "threads": options.threads,
        "clock": options.clock,
        "device": str(device),
    }
    rows: list[dict[str, Any]] = []
    for name, timing in timings.items():
        row = {"method": name, **shared, **_numbers(timing)}
        if name != "floor":
            stored, deeper_stored = (saved_bytes(m.forwards[name]) for m in (found, deeper_found))
            row |= {"saved_bytes": stored, "saved_bytes_per_step": deeper_stored - stored}
        if name == "reversible":
            row["target"] = TARGETS.get(width)
        rows.append(row)
    rows += [{"method": name, **shared, "not_measured": why} for name, why in found.missing.items()]
    print(f"width {width} done", file=sys.stderr, flush=True)
    return rows


def _numbers(timing: Timing) -> dict[str, float]:
    return {
        "median_seconds": timing.median,
        "low_seconds": timing.low,
        "high_seconds": timing.high,
        "ratio_to_floor": timing.ratio,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ("width", "method", "ms", "of the floor", "target", "saved kB", "saved kB a step")
    lines: list[tuple[str, ...]] = [heads]
    for row in rows:
        if "not_measured" in row:
            lines.append((str(row["width"]), row["method"], row["not_measured"], "", "", "", ""))
            continue
        target, stored, slope = row.get("target"), row.get("saved_bytes"), row.get("saved_bytes_per_step")
        lines.append(
            (
                str(row["width"]),
                row["method"],
                f"{1e3 * row['median_seconds']:.2f}",
                f"{row['ratio_to_floor']:.3f}",
                "" if target is None else f"{target:.2f}",
                "" if stored is None else f"{stored / 1024:.0f}",
                "" if slope is None else f"{slope / 1024:.0f}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 1 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step", description="Time a training step of each method."
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 256, 512], help="widths of the cell")
    parser.add_argument("--batch", type=int, default=2, help="samples")
    parser.add_argument("--tokens", type=int, default=448, help="tokens a sample (the RevDEQ paper's sequence length)")
    parser.add_argument("--steps", type=int, default=4, help="N, the steps of the reversible solve")
    parser.add_argument("--beta", type=float, default=0.5, help="relaxation parameter")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds, at least 3")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="process: for one thread, busy machines")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--peer-rows", type=Path, nargs="*", default=[], help="JSON files of peers to show beside")
    return parser.parse_args()


if __name__ == "__main__":
    main()
