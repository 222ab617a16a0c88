"""Functions with complex numbers and Fourier transforms inside: values and gradients are torch's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from verify.reference.arithmetic.extended import Extended
from verify.reference.graph import Program, TracingError, UnsupportedOperationError, trace


F64 = torch.float64
Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def modes(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A spectral layer: some modes are kept and mixed."""
    spectrum = torch.fft.rfft(z)
    kept = spectrum[..., :2] * torch.complex(x[..., :2], x[..., 2:4])
    return torch.fft.irfft(torch.cat([kept, torch.zeros_like(spectrum[..., 2:])], -1), n=z.shape[-1])


FUNCTIONS: dict[str, Function] = {
    "fft": lambda z, x: torch.fft.fft(z).real + torch.fft.ifft(x).imag,
    "odd and orthonormal": lambda z, x: torch.fft.irfft(torch.fft.rfft(z[..., :5], norm="ortho"), n=5).sum() * x,
    "two axes": lambda z, x: torch.fft.irfft2(torch.fft.rfft2(z) * 0.5, s=z.shape[-2:]) + x,
    "modes": modes,
    "products": lambda z, x: (torch.complex(z, x) * (1 + 2j) / (3 - 1j)).abs(),
    "conjugates": lambda z, x: (torch.complex(z, x).conj() * torch.complex(x, z)).imag,
    "polar": lambda z, x: torch.polar(x.abs() + 1, z).real,
    "pairs": lambda z, x: torch.view_as_real(torch.view_as_complex(torch.stack([z, x], -1)).exp()).sum(-1),
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z, x, c = (torch.randn(4, 6, generator=generator, dtype=F64) for _ in range(3))
    traced = trace(FUNCTIONS[name], z, x)
    fixed = {"args": x.numpy()}
    value = Program(traced.forward, Extended(), fixed)({"z0": z.numpy()})["z0"]
    pulled = Program(traced.vjp, Extended(), fixed)({"z0": z.numpy(), "cotangent": c.numpy()})
    leaves = z.clone().requires_grad_(), x.clone().requires_grad_()
    expected = FUNCTIONS[name](*leaves)
    assert np.allclose(value.astype(float), expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    for leaf, gradient in zip(("z0", "args"), torch.autograd.grad(expected, leaves, c), strict=True):
        wanted = gradient.numpy()
        assert np.allclose(pulled[leaf].astype(float), wanted, rtol=1e-11, atol=1e-12)


def test_complex_argument_and_uncovered_complex_operation_are_refused_in_words() -> None:
    z = torch.zeros(3, dtype=F64)
    with pytest.raises(TracingError, match="args is complex"):
        trace(lambda z, x: z + x.real, z, torch.ones(3, dtype=torch.complex128))
    traced = trace(lambda z, x: torch.complex(z, x).tanh().real, z, z + 1)
    with pytest.raises(UnsupportedOperationError, match="of complex numbers"):
        Program(traced.forward, Extended(), {"args": np.ones(3)})({"z0": np.zeros(3)})
