"""What to change to do better: from the eigenvalues at the fixed point and the bits that came out."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from revdeq.rates import balanced_beta, error_growth, spectral_rate
from verify.certificate.certificate import Certificate


def rate_of(eigenvalues: NDArray[np.complex128], beta: float) -> float:
    """The greatest modulus of the step's eigenvalues at this beta; 0 without eigenvalues (T2)."""
    if eigenvalues.size == 0:
        return 0.0
    kappa = torch.from_numpy(eigenvalues)
    return float(spectral_rate(kappa, torch.tensor(beta, dtype=torch.float64)).max())


def better_beta(eigenvalues: NDArray[np.complex128], num_steps: int) -> float:
    """The beta that converges furthest in N steps without the reversal forgetting more, to the nearest 1/64 but 1."""
    beta = round(64 * balanced_beta(max(1, num_steps), torch.from_numpy(eigenvalues))) / 64
    return min(max(beta, 1 / 64), 127 / 64) if beta != 1.0 else 63 / 64


def advise(certificate: Certificate) -> list[str]:
    """Sentences, the most useful first; none where nothing is known to help."""
    beta, num_steps = certificate.beta, certificate.num_steps
    eigenvalues = np.array([complex(*pair) for pair in certificate.said["eigenvalues"]], dtype=np.complex128)
    sentences: list[str] = []
    if eigenvalues.size:
        if not np.max(np.abs(eigenvalues.real)) < 1:
            sentences.append(_about_averaging(eigenvalues))
        else:
            sentences += _about_beta(eigenvalues, beta, num_steps)
    rows = certificate.bits_right
    narrow = [row for row in rows if row.adjoint == "reversible" and row.bits < row.stored - 8 and row.stored < 53]
    if narrow:
        worst = min(narrow, key=lambda row: row.bits - row.stored)
        sentences.append(
            f"in {worst.dtype} the gradient of {worst.leaf} has {max(0.0, worst.bits):.1f} of {worst.stored} bits; run "
            "f, or the sensitive part of it, in a wider dtype"
        )
    sentences += certificate.said["departures"]
    casts: list[str] = certificate.said["casts"]
    if casts:
        sentences.append(
            f"f casts between floating dtypes ({casts[0]}); every such cast rounds, and is not differentiated"
        )
    return sentences


def _about_averaging(eigenvalues: NDArray[np.complex128]) -> str:
    """|1 - alpha (1 - kappa)| < 1 for every kappa: Re kappa < 1 and alpha < 2 (1 - Re kappa) / |1 - kappa|^2 (T5)."""
    opening = "no beta makes the iteration converge with the eigenvalues of df/dz at the fixed point"
    if not np.max(eigenvalues.real) < 1:
        return (
            f"{opening}, and averaging does not either, for {_shown(eigenvalues[np.argmax(eigenvalues.real)])} is one "
            "of them; use Anderson's or Broyden's method with the implicit gradient, or another f with this solution"
        )
    alpha = float(np.min(2 * (1 - eigenvalues.real) / np.abs(1 - eigenvalues) ** 2))
    return (
        f"{opening}; average f, (1 - alpha) z + alpha f(z) with alpha below {alpha:.3g}, or use Anderson's method with "
        "the implicit gradient"
    )


def _shown(value: complex) -> str:
    return f"{value.real:.4g}" if value.imag == 0 else f"{value.real:.4g} +- {abs(value.imag):.4g} i"


def _about_beta(eigenvalues: NDArray[np.complex128], beta: float, num_steps: int) -> list[str]:
    kappa, better = torch.from_numpy(eigenvalues), better_beta(eigenvalues, num_steps)
    rate, best = rate_of(eigenvalues, beta), rate_of(eigenvalues, better)
    present, other = (error_growth(choice, kappa, max(1, num_steps)) for choice in (beta, better))
    left, less = float(present.truncation[-1]), float(other.truncation[-1])
    sentences: list[str] = []
    if not rate < 1:
        sentences.append(
            f"at beta {beta:g} the iteration does not converge (rate {rate:.4g} per step); at beta {better:g} it does "
            f"({best:.4g})"
        )
    elif less < left / 2:
        sentences.append(
            f"with beta {better:g} some {less:.1e} would remain after {num_steps} steps between the N-step and the "
            f"implicit gradient, where beta {beta:g} leaves {left:.1e}"
        )
    elif left > 2.0**-10:
        wanted = math.ceil(-20 / math.log2(rate))
        sentences.append(
            f"after {num_steps} steps some {left:.1e} remains between the N-step and the implicit gradient; "
            f"{wanted} steps bring it to about 2^-20"
        )
    lost = math.log2(max(1.0, float(present.rounding[-1])))
    if rate < 1 and lost > 10:
        sentences.append(
            f"reversing {num_steps} steps at beta {beta:g} costs some {lost:.0f} bits of the state dtype; take fewer "
            "steps, a beta nearer to the balanced one, or arithmetic='bitwise'"
        )
    return sentences
