"""Blocks of transformers, timm, torchvision and PyTorch Geometric, small, where these are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from torch_cells import IMAGE, TOKENS, Cell, First, around


Blocks = dict[str, tuple[Callable[[], Any], tuple[int, ...]]]
"""What builds each block, and the shape that it keeps."""


class Graph(nn.Module):
    """A layer of PyTorch Geometric on a fixed graph of five nodes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.edges = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 4]])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """New features of every node."""
        return self.layer(z, self.edges)


class Rotated(nn.Module):
    """A decoder layer that is given the rotary embedding of its positions."""

    def __init__(self, layer: nn.Module, rotary: nn.Module) -> None:
        super().__init__()
        self.layer, self.rotary = layer, rotary

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The layer's first result."""
        found = self.layer(z, position_embeddings=self.rotary(z, torch.arange(z.shape[1])[None]))
        return found[0] if isinstance(found, tuple) else found


def _transformers() -> Blocks:
    def of(package: str, block: str, configuration: str, **options: Any) -> tuple[Callable[[], Any], tuple[int, ...]]:
        module = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
        settings = importlib.import_module("transformers")
        made = getattr(settings, configuration)(**options, attn_implementation="eager")
        return (lambda: First(getattr(module, block)(made))), TOKENS

    small: dict[str, Any] = {"hidden_size": 4, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}

    def llama(package: str, name: str) -> tuple[Callable[[], Any], tuple[int, ...]]:
        module = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
        settings = getattr(importlib.import_module("transformers"), f"{name}Config")
        made = settings(**small, num_key_value_heads=1, vocab_size=8, head_dim=2, attn_implementation="eager")
        return (
            lambda: Rotated(
                getattr(module, f"{name}DecoderLayer")(made, 0), getattr(module, f"{name}RotaryEmbedding")(made)
            )
        ), TOKENS

    return {
        "GPT-2": of("gpt2", "GPT2Block", "GPT2Config", n_embd=4, n_head=2, n_layer=1, vocab_size=8, n_positions=4),
        "BERT": of("bert", "BertLayer", "BertConfig", **small, vocab_size=8),
        "RoBERTa": of("roberta", "RobertaLayer", "RobertaConfig", **small, vocab_size=8),
        "ViT": of("vit", "ViTLayer", "ViTConfig", **small),
        "Llama": llama("llama", "Llama"),
        "Mistral": llama("mistral", "Mistral"),
        "Qwen2": llama("qwen2", "Qwen2"),
        "Gemma": llama("gemma", "Gemma"),
    }


def _timm() -> Blocks:
    convnext = importlib.import_module("timm.models.convnext")
    vit = importlib.import_module("timm.models.vision_transformer")
    swin = importlib.import_module("timm.models.swin_transformer")
    mixer = importlib.import_module("timm.models.mlp_mixer")
    resnet = importlib.import_module("timm.models.resnet")
    return {
        "ConvNeXt": (lambda: convnext.ConvNeXtBlock(4, kernel_size=3), IMAGE),
        "ViT": (lambda: vit.Block(4, 2, mlp_ratio=2), TOKENS),
        "ViT, layer scale": (lambda: vit.Block(4, 2, mlp_ratio=2, init_values=0.1), TOKENS),
        "Swin": (lambda: swin.SwinTransformerBlock(4, (4, 4), 2, window_size=2, mlp_ratio=2), (1, 4, 4, 4)),
        "Swin, shifted": (
            lambda: swin.SwinTransformerBlock(4, (4, 4), 2, window_size=2, shift_size=1, mlp_ratio=2),
            (1, 4, 4, 4),
        ),
        "mixer": (lambda: mixer.MixerBlock(4, 3, mlp_ratio=(0.5, 2.0)), TOKENS),
        "basic": (lambda: resnet.BasicBlock(4, 4), IMAGE),
    }


def _torchvision() -> Blocks:
    models = importlib.import_module("torchvision.models")
    return {
        "basic": (lambda: models.resnet.BasicBlock(4, 4), IMAGE),
        "bottleneck": (lambda: models.resnet.Bottleneck(4, 1), IMAGE),
        "ConvNeXt": (lambda: models.convnext.CNBlock(4, 0.1, 0.0), IMAGE),
        "inverted residual": (lambda: models.mobilenetv2.InvertedResidual(4, 4, 1, 2), IMAGE),
        "ViT": (
            lambda: models.vision_transformer.EncoderBlock(2, 4, 8, 0.0, 0.0, partial(nn.LayerNorm, eps=1e-6)),
            TOKENS,
        ),
        "Swin": (lambda: models.swin_transformer.SwinTransformerBlock(4, 2, [2, 2], [0, 0]), (1, 4, 4, 4)),
    }


def _torch_geometric() -> Blocks:
    pyg = importlib.import_module("torch_geometric.nn")
    layers: dict[str, Callable[[], Any]] = {
        "GCN": lambda: pyg.GCNConv(4, 4),
        "SAGE": lambda: pyg.SAGEConv(4, 4),
        "SAGE, max": lambda: pyg.SAGEConv(4, 4, aggr="max"),
        "graph": lambda: pyg.GraphConv(4, 4),
        "attention": lambda: pyg.GATConv(4, 4),
        "attention, second": lambda: pyg.GATv2Conv(4, 4),
        "isomorphism": lambda: pyg.GINConv(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))),
        "transformer": lambda: pyg.TransformerConv(4, 4),
        "Chebyshev": lambda: pyg.ChebConv(4, 4, 2),
        "gated": lambda: pyg.ResGatedGraphConv(4, 4),
        "ARMA": lambda: pyg.ARMAConv(4, 4),
        "edges": lambda: pyg.EdgeConv(nn.Linear(8, 4)),
    }
    return {name: (lambda make=make: Graph(make()), (5, 4)) for name, make in layers.items()}


LIBRARIES: dict[str, Callable[[], Blocks]] = {
    "transformers": _transformers,
    "timm": _timm,
    "torchvision": _torchvision,
    "torch_geometric": _torch_geometric,
}


def library_cells() -> tuple[dict[str, Callable[[], Cell]], list[str]]:
    """Every cell of an installed library, by name, to be built; and the libraries that are not installed."""
    cells: dict[str, Callable[[], Cell]] = {}
    absent: list[str] = []
    for library, blocks in LIBRARIES.items():
        if importlib.util.find_spec(library) is None:
            absent.append(library)
            continue
        for name, (make, shape) in blocks().items():
            cells[f"{library}, {name}"] = partial(around, make, shape)
    return cells, absent
