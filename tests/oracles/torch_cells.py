"""Cells that people build from torch: its own layers and functions, and published ones, small, in float64, seeded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from revdeq.nn import Conv, Dense, Transformer
from verify.problems import PROBLEMS, get_problem


Cell = tuple[Callable[[Any, Any], Any], torch.Tensor, Any]
Function = Callable[..., torch.Tensor]

F64 = torch.float64
ROWS, TOKENS, IMAGE, SIGNAL = (2, 4), (1, 3, 4), (1, 4, 4, 4), (1, 4, 6)


def around(make: Callable[[], Any], shape: tuple[int, ...] = ROWS) -> Cell:
    """z -> .3 tanh(block(z + x)) + x of a block that keeps the shape, from zero; `make` builds it, in any dtype."""
    torch.manual_seed(0)
    block = make()
    if isinstance(block, nn.Module):
        block = block.to(F64).eval()
    x = 0.5 * torch.randn(shape, dtype=F64)
    return (lambda z, x: 0.3 * torch.tanh(block(z + x)) + x), torch.zeros(shape, dtype=F64), x


def weighed(function: Function, *shapes: tuple[int, ...]) -> Callable[[], Function]:
    """Builds z -> function(z, *weights), the weights captured."""
    return lambda: partial(_with_weights, function, [0.4 * torch.randn(shape, dtype=F64) for shape in shapes])


def _with_weights(function: Function, weights: list[torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    return function(z, *weights)


class First(nn.Module):
    """A module of one argument from one that takes it several times, or returns several results."""

    def __init__(self, module: nn.Module, times: int = 1, **options: Any) -> None:
        super().__init__()
        self.module, self.times, self.options = module, times, options

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The first result."""
        found = self.module(*[z] * self.times, **self.options)
        return found[0] if isinstance(found, tuple) else found


def mlp(activation: nn.Module) -> Callable[[], nn.Module]:
    """Builds two linear layers with an activation between them."""
    return lambda: nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 4))


def symmetric_exponential(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Z exp(w + w^T), by eigenvectors."""
    values, vectors = torch.linalg.eigh(w + w.T)
    return z @ (vectors * torch.exp(values)) @ vectors.T


def mixture(z: torch.Tensor, gate: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """A soft mixture of linear experts."""
    return torch.einsum("be,bi,eij->bj", torch.softmax(z @ gate, -1), z, experts)


def coarse_and_back(mode: str) -> Callable[[], Function]:
    """Builds averaging to half the size and resampling to the whole."""
    align = None if mode == "nearest" else False
    return lambda: lambda z: F.interpolate(F.avg_pool2d(z, 2), scale_factor=2, mode=mode, align_corners=align)


def pooled_segments(reduction: str) -> Callable[[], Function]:
    """Builds a segment reduction over the rows of z, spread to them again."""
    lengths, back = torch.tensor([2, 1, 2]), torch.tensor([0, 0, 1, 2, 2])
    return lambda: lambda z: torch.segment_reduce(z, reduction, lengths=lengths)[back]


def scattered(reduction: str) -> Callable[[], Function]:
    """Builds message passing over a fixed graph by scatter_reduce."""
    source, target = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 2, 3, 4, 0, 2])
    return lambda: (
        lambda z: torch.zeros_like(z).scatter_reduce(
            0, target[:, None].expand(6, z.shape[1]), z[source], reduction, include_self=False
        )
    )


EYE = torch.eye(4, dtype=F64)
MASK = torch.tensor([True, False, True, True])
GRID = torch.linspace(-0.8, 0.8, 4, dtype=F64)
ROW_LAYERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: nn.Linear(4, 4),
    **{
        f"mlp of {type(activation).__name__}": mlp(activation)
        for activation in (
            nn.GELU(),
            nn.GELU("tanh"),
            nn.ReLU(),
            nn.ReLU6(),
            nn.SiLU(),
            nn.Mish(),
            nn.ELU(),
            nn.SELU(),
            nn.CELU(),
            nn.Softplus(),
            nn.Softsign(),
            nn.Sigmoid(),
            nn.Hardsigmoid(),
            nn.Hardswish(),
            nn.Hardtanh(),
            nn.LeakyReLU(),
            nn.PReLU(8),
            nn.RReLU(),
            nn.Softshrink(0.1),
            nn.Hardshrink(0.1),
            nn.Tanhshrink(),
            nn.Threshold(0.1, 0.0),
            nn.LogSigmoid(),
        )
    },
    "gated": lambda: nn.Sequential(nn.Linear(4, 8), nn.GLU()),
    "softmin": lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmin(-1)),
    "log softmax": lambda: nn.Sequential(nn.Linear(4, 4), nn.LogSoftmax(-1)),
    "layer norm": lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)),
    "RMS norm": lambda: nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 4)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)),
    "RNN cell": lambda: First(nn.RNNCell(4, 4), 2),
    "GRU cell": lambda: First(nn.GRUCell(4, 4), 2),
    "bilinear": lambda: First(nn.Bilinear(4, 4, 4), 2),
    "Cayley transform": weighed(lambda z, w: torch.linalg.solve(EYE + w - w.T, z.T).T, (4, 4)),
    "inverse": weighed(lambda z, w: z @ torch.linalg.inv(EYE + w), (4, 4)),
    "Cholesky factor": weighed(lambda z, w: z @ torch.linalg.cholesky(w @ w.T + EYE), (4, 4)),
    "matrix exponential": weighed(lambda z, w: z @ torch.linalg.matrix_exp(w - w.T), (4, 4)),
    "determinant": weighed(lambda z, w: z * torch.linalg.det(EYE + w), (4, 4)),
    "eigenvalues": weighed(lambda z, w: z * torch.linalg.eigvalsh(w + w.T), (4, 4)),
    "eigenvectors": weighed(symmetric_exponential, (4, 4)),
    "singular values": weighed(lambda z, w: z * torch.linalg.svdvals(w), (4, 4)),
    "log gamma": weighed(lambda z, w: 0.1 * torch.lgamma(2 + z.tanh()) @ w, (4, 4)),
    "inverse error function": weighed(lambda z, w: torch.erfinv(0.5 * z.tanh()) @ w, (4, 4)),
    "Fourier layer": weighed(lambda z, w: torch.fft.irfft(torch.fft.rfft(z) * w, n=4), (3,)),
    "Kolmogorov-Arnold": weighed(lambda z, w: (torch.sin(z[:, None] * w) * w.cos()).sum(-1), (4, 4)),
    "mixture of experts": weighed(mixture, (4, 2), (2, 4, 4)),
    "Hopfield": weighed(lambda z, w: torch.softmax(2 * z @ w, -1) @ w.T, (4, 6)),
    "distances": weighed(lambda z, w: torch.exp(-torch.cdist(z, w)), (4, 4)),
    "cosine similarity": weighed(lambda z, w: F.cosine_similarity(z[:, None] + 1, w[None], dim=-1), (4, 4)),
    "angles": lambda: lambda z: torch.atan2(z, 1 + z.roll(1, -1)),
    "sort": lambda: lambda z: torch.sort(z, -1).values,
    "top k": lambda: lambda z: z * (z >= torch.topk(z, 2, -1).values[..., -1:]).to(F64),
    "running sum": lambda: lambda z: 0.3 * torch.cumsum(z, -1),
    "constant mask": lambda: lambda z: torch.cat([z[:, MASK], z[:, ~MASK]], 1),
    "functional Jacobian": lambda: lambda z: torch.func.vmap(torch.func.jacrev(lambda v: v.sin() * v.sum()))(z).sum(1),
}
TOKEN_LAYERS: dict[str, Callable[[], Any]] = {
    "attention": lambda: First(nn.MultiheadAttention(4, 2, batch_first=True), 3, need_weights=False),
    "attention with weights": lambda: First(nn.MultiheadAttention(4, 2, batch_first=True), 3),
    "causal attention": lambda: lambda z: F.scaled_dot_product_attention(z, z, z, is_causal=True),
    "encoder layer": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "encoder layer, norm first": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True),
    "decoder layer": lambda: First(nn.TransformerDecoderLayer(4, 2, 8, batch_first=True), 2),
    "GRU": lambda: First(nn.GRU(4, 4, batch_first=True)),
    "LSTM": lambda: First(nn.LSTM(4, 4, batch_first=True)),
    "linear attention": lambda: lambda z: F.elu(z) @ (F.elu(z).transpose(-1, -2) @ z),
    "rotary positions": lambda: lambda z: z * GRID.cos() + torch.cat([-z[..., 2:], z[..., :2]], -1) * GRID.sin(),
}
IMAGE_LAYERS: dict[str, Callable[[], Any]] = {
    "convolution": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "reflected convolution": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "replicated convolution": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"),
    "circular convolution": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "separable convolution": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)),
    "dilated convolution": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    "down and up": lambda: nn.Sequential(nn.Conv2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)),
    "group norm": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1)),
    "instance norm": lambda: nn.Sequential(nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 1)),
    "response norm": lambda: nn.Sequential(nn.LocalResponseNorm(3), nn.Conv2d(4, 4, 1)),
    "greatest of a window": lambda: nn.MaxPool2d(3, 1, 1),
    "mean of a window": lambda: nn.AvgPool2d(3, 1, 1),
    "squeeze and excite": lambda: lambda z: z * torch.sigmoid(z.mean((2, 3), keepdim=True)),
    "pixel shuffle": lambda: nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(1, 1, 3, padding=1), nn.PixelUnshuffle(2)),
    "unfolded": lambda: lambda z: F.fold(F.unfold(z, 2), (4, 4), 2),
    "grid sample": lambda: (
        lambda z: F.grid_sample(
            z, torch.stack(torch.meshgrid(GRID, GRID, indexing="xy"), -1)[None], align_corners=False
        )
    ),
    **{f"resampled, {mode}": coarse_and_back(mode) for mode in ("nearest", "bilinear", "bicubic")},
    "spectral convolution": lambda: lambda z: torch.fft.irfft2(torch.fft.rfft2(z) * 0.5, s=(4, 4)),
}
SIGNAL_LAYERS: dict[str, Callable[[], Any]] = {
    "temporal convolution": lambda: nn.Conv1d(4, 4, 3, padding=1),
    "causal convolution": lambda: lambda z: F.avg_pool1d(F.pad(z, (2, 0)), 3, 1),
    "gated convolution": lambda: nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.GLU(1)),
}
GRAPH_LAYERS: dict[str, Callable[[], Any]] = {
    **{f"messages, {reduction}": scattered(reduction) for reduction in ("sum", "mean", "amax")},
    **{f"segments, {reduction}": pooled_segments(reduction) for reduction in ("sum", "mean", "max")},
}


def published(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Cell:
    """A cell that takes z and x itself."""
    torch.manual_seed(0)
    return make().to(F64).eval(), torch.zeros(shape, dtype=F64), 0.5 * torch.randn(shape, dtype=F64)


def zoo(name: str) -> Cell:
    """A problem of the zoo."""
    problem = get_problem(name)
    return (problem.function, *problem.inputs(F64))


def torch_cells() -> dict[str, Callable[[], Cell]]:
    """Every cell, by name, to be built."""
    shapes = {ROWS: ROW_LAYERS, TOKENS: TOKEN_LAYERS, IMAGE: IMAGE_LAYERS, SIGNAL: SIGNAL_LAYERS, (5, 4): GRAPH_LAYERS}
    cells = {name: partial(around, make, shape) for shape, layers in shapes.items() for name, make in layers.items()}
    return {
        **cells,
        "DEQ of a dense cell": partial(published, lambda: Dense(4), ROWS),
        "DEQ of a residual cell": partial(published, lambda: Conv(4, groups=2), IMAGE),
        "DEQ of a transformer": partial(published, lambda: Transformer(4, 2), TOKENS),
        **{f"zoo, {name}": partial(zoo, name) for name in PROBLEMS},
    }
