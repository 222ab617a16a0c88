"""Certified robustness of two digits classifiers with an equilibrium inside: a contracting and a monotone one.

    python -m benchmarks.robust_digits [--images 20] [--width 32]

trains each on scikit-learn's 8 x 8 digits (pixels from 0 to 1, the first 1400) and prints a Markdown table for test
images: how many are classified rightly, and how many rightly and provably so for every image within a radius in the
greatest norm; the least and greatest Lipschitz bound from image to z* that is certified within the smallest radius; the
global bound ||U||_2 / m of a monotone layer of margin m, or ||U||_2 / (1 - k) of a contraction of constant k; and
seconds for a certificate.

References: C. Pabbaraju, E. Winston, J. Z. Kolter, Estimating Lipschitz constants of monotone deep equilibrium models,
ICLR 2021.
"""

from __future__ import annotations

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

from revdeq.nn import DEQ, Dense, MonotoneDEQ
from verify.certificate import certify_set


F64 = torch.float64
RADII = (0.001, 0.003, 0.01, 0.03)
DECAY = 0.5
TRAINED, STEPS, CONSTANT, MARGIN = 1400, 300, 0.5, 1.0


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images as rows of 64 pixels, and their labels."""
    found = load_digits()
    return torch.from_numpy(found.data / 16.0), torch.from_numpy(found.target)


def trained(layer: DEQ, width: int) -> nn.Linear:
    """Train a layer and the readout of its equilibrium; the readout."""
    images, labels = digits()
    readout = nn.Linear(width, 10, dtype=F64)
    optimizer = torch.optim.AdamW([*layer.parameters(), *readout.parameters()], lr=5e-3, weight_decay=DECAY)
    for _ in range(STEPS):
        chosen = torch.randint(0, TRAINED, (64,))
        loss = nn.functional.cross_entropy(readout(layer(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if isinstance(layer.function, Dense):
            with torch.no_grad():
                weight = layer.function.state.weight
                weight *= min(1.0, CONSTANT / float(torch.linalg.matrix_norm(weight, 2)))
    return readout


def row(name: str, layer: DEQ, width: int, count: int, slope: float) -> str:
    """A line of the table.

    Args:
        name: of the classifier.
        layer: untrained.
        width: of its state.
        count: number of test images.
        slope: z* moves at most this many times as far as U x, in the Euclidean norm.
    """
    readout = trained(layer, width)
    images, labels = (part[TRAINED : TRAINED + count] for part in digits())
    right = [0] * (len(RADII) + 1)
    bounds: list[float] = []
    began = time.process_time()
    for image, label in zip(images, labels, strict=True):
        start = layer(image[None]).detach()
        right[0] += int(readout(start).argmax()) == int(label)
        for place, radius in enumerate(RADII, 1):
            found = certify_set(
                (layer.function, start, image[None]),
                radius=radius,
                readout=(readout.weight.detach(), readout.bias.detach()),
            )
            right[place] += found.robust and found.decision == int(label)
            if place == 1 and found.lipschitz is not None:
                bounds.append(found.lipschitz["euclidean"])
    seconds = (time.process_time() - began) / (count * len(RADII))
    injected = float(torch.linalg.matrix_norm(layer.function.input.weight.detach(), 2))
    cells = [
        name,
        *(f"{found} of {count}" for found in right),
        f"{min(bounds):.3g} to {max(bounds):.3g}" if bounds else "none",
        f"{injected * slope:.3g}",
        f"{seconds:.2g}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train, certify, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--width", type=int, default=32)
    given = parser.parse_args()
    torch.manual_seed(0)
    radii = " | ".join(f"certified within {radius:g}" for radius in RADII)
    print(f"| classifier | right | {radii} | certified Lipschitz bounds | global bound | s |")
    print("|" + "---|" * (len(RADII) + 5))
    cell = Dense(given.width, 64, contraction_constant=CONSTANT, dtype=F64)
    contracting = DEQ(cell, max_steps=60)
    print(row(f"contracting, tanh, constant {CONSTANT:g}", contracting, given.width, given.images, 1 / (1 - CONSTANT)))
    monotone = MonotoneDEQ(given.width, 64, margin=MARGIN, dtype=F64)
    print(row(f"monotone, ReLU, margin {MARGIN:g}", monotone, given.width, given.images, 1 / MARGIN))


if __name__ == "__main__":
    main()
