"""Equilibrium layers as torch modules: cells f(z, x), and the layer that solves z = f(z, x)."""

from revdeq.nn.conv import Conv as Conv
from revdeq.nn.dense import Dense as Dense
from revdeq.nn.deq import DEQ as DEQ, MonotoneDEQ as MonotoneDEQ
from revdeq.nn.jacobian import jacobian_penalty as jacobian_penalty
from revdeq.nn.monotone import Monotone as Monotone
from revdeq.nn.transformer import Transformer as Transformer


__all__ = [
    "DEQ",
    "Conv",
    "Dense",
    "Monotone",
    "MonotoneDEQ",
    "Transformer",
    "jacobian_penalty",
]
