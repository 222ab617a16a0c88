"""What to change to do better: from the eigenvalues at the fixed point and the bits that came out."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from revdeq.rates import gradient_growth, minimising_beta, spectral_rate
from verify.certificate.certificate import LeafBits


ENOUGH = 0.02
"""A rate this much lower than the present one is worth a sentence."""


def rate_of(eigenvalues: NDArray[np.complex128], beta: float) -> float:
    """The greatest modulus of the step's eigenvalues at this beta; 0 without eigenvalues (T2)."""
    if eigenvalues.size == 0:
        return 0.0
    kappa = torch.from_numpy(eigenvalues)
    return float(spectral_rate(kappa, torch.tensor(beta, dtype=torch.float64)).max())


def best_beta(eigenvalues: NDArray[np.complex128]) -> float:
    """The beta in (0, 2) with the least rate for these eigenvalues, rounded to 1/64 away from 1."""
    kappa = torch.from_numpy(eigenvalues)

    def rates(beta: torch.Tensor) -> torch.Tensor:
        return spectral_rate(kappa, beta.unsqueeze(-1)).amax(-1)

    beta = round(64 * minimising_beta(rates)) / 64
    return beta if beta != 1.0 else 63 / 64


def advise(
    eigenvalues: NDArray[np.complex128] | None,
    beta: float,
    num_steps: int,
    rows: tuple[LeafBits, ...],
    casts: tuple[str, ...],
) -> tuple[str, ...]:
    """Sentences, the most useful first; none where nothing is known to help.

    Args:
        eigenvalues: of df/dz at the fixed point, or None where none was found.
        beta: relaxation parameter of the run.
        num_steps: N of the run.
        rows: bits right of the torch results.
        casts: casts between floating dtypes inside f.
    """
    sentences: list[str] = []
    if eigenvalues is not None and eigenvalues.size:
        rate = rate_of(eigenvalues, beta)
        better = best_beta(eigenvalues)
        best = rate_of(eigenvalues, better)
        if not rate < 1:
            if best < 1:
                sentences.append(
                    f"at beta {beta:g} the iteration does not converge (rate {rate:.4g}); at beta {better:g} "
                    "its rate is "
                    f"{best:.4g}"
                )
            else:
                sentences.append(
                    "no beta makes the iteration converge with these eigenvalues; average f, (1 - alpha) z + "
                    "alpha f(z), "
                    "or use Anderson's method with the implicit gradient"
                )
        elif best < rate - ENOUGH:
            sentences.append(f"beta {better:g} lowers the rate per step from {rate:.4g} to {best:.4g}")
        final = min(rate, best) if best < 1 else rate
        if 0 < final < 1 and final**num_steps > 2.0**-10:
            wanted = math.ceil(-20 / math.log2(final))
            sentences.append(
                f"after {num_steps} steps the N-step gradient is that of the map, not of the fixed point: "
                "the remainder is "
                f"about {final**num_steps:.1e}; {wanted} steps bring it to 2^-20"
            )
        growth = gradient_growth(rate, beta)
        if rate < 1 and growth > 1:
            lost = 0.5 * math.log2(max(1.0, sum(growth**k for k in range(min(num_steps, 64)))))
            if lost > 10:
                sentences.append(
                    f"reversing {num_steps} steps costs some {lost:.0f} bits of the state dtype; take fewer "
                    "steps, a beta "
                    "nearer to the balanced one, or arithmetic='bitwise'"
                )
    low = [row for row in rows if row.target == "n-step" and row.adjoint == "reversible" and row.bits < row.stored - 8]
    if low:
        worst = min(low, key=lambda row: row.bits - row.stored)
        sentences.append(
            f"in {worst.dtype} the gradient of {worst.leaf} has {worst.bits:.1f} of {worst.stored} bits; run "
            "f in a wider "
            "dtype, or the sensitive part of it"
        )
    if casts:
        sentences.append(
            f"f casts between floating dtypes ({casts[0]}); every such cast rounds, and is not differentiated"
        )
    return tuple(sentences)
