"""Equilibrium cells of deep learning on images of handwritten digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.problems import data
from verify.problems.operations import Operations
from verify.problems.problem import Problem
from verify.problems.scope import Declared, Scope


_EPS = 2.0**-16
"""Added to variances; a power of two, so that every dtype adds the same number."""

_IMAGES = (0, 8)
_DENSE = 8
_TOKENS, _WIDTH, _HEADS = 4, 8, 2
_CHANNELS, _GROUPS, _SIDE = 4, 2, 4


def _inject(ops: Operations, z: Any, args: Any) -> Any:
    recurrent = ops.matmul(z, ops.transpose(args["W"]))
    injected = ops.add(ops.matmul(args["x"], ops.transpose(args["U"])), args["b"])
    return ops.add(recurrent, injected)


def _tanh_statement(ops: Operations, z: Any, args: Any) -> Any:
    return ops.tanh(_inject(ops, z, args))


def _softplus_statement(ops: Operations, z: Any, args: Any) -> Any:
    return ops.softplus(_inject(ops, z, args))


def _dense(name: str, title: str, source: str, statement: Any, seed: int, norm: float) -> Problem:
    weight = data.contraction(seed, _DENSE, norm)
    cotangent_z, cotangent_y = data.cotangents(seed + 4, (len(_IMAGES), _DENSE))
    return Problem(
        name=name,
        title=title,
        source=source,
        statement=statement,
        z0=data.normal(seed + 3, (len(_IMAGES), _DENSE), 0.5),
        args={
            "W": weight,
            "U": data.normal(seed + 1, (_DENSE, 16), 0.25),
            "b": data.normal(seed + 2, (_DENSE,), 0.125),
            "x": data.digit_images(_IMAGES, 4).reshape(len(_IMAGES), 16),
        },
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=data.spectral_norm_bound(weight),
        contraction_kind="bound",
        spectrum="nonlinear",
    )


def dense_tanh() -> Problem:
    """f(z) = tanh(z W^T + x U^T + b) on two digits; k <= |W|_2 since tanh' <= 1."""
    return _dense(
        "dense-tanh",
        "Dense tanh cell on handwritten digits",
        "Bai, Kolter, Koltun, Deep Equilibrium Models, arXiv 1909.01377; Ling et al., arXiv 2205.13814, eq. 1",
        _tanh_statement,
        41,
        0.9375,
    )


def dense_softplus() -> Problem:
    """f(z) = softplus(z W^T + x U^T + b) on two digits; k <= |W|_2 since softplus' < 1."""
    return _dense(
        "dense-softplus",
        "Dense softplus cell on handwritten digits",
        "Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591; Ling et al., arXiv 2205.13814",
        _softplus_statement,
        51,
        0.875,
    )


def _conv_statement(ops: Operations, z: Any, args: Any) -> Any:
    mixed = ops.add(ops.conv2d(z, args["kernel"]), ops.conv2d(args["x"], args["input_kernel"]))
    return ops.tanh(ops.group_norm(mixed, _GROUPS, args["gain"], args["bias"], _EPS))


def conv_group_norm() -> Problem:
    """f(z) = tanh(group_norm(conv(z) + conv(x))) on two 4 x 4 digits, 4 channels in 2 groups.

    Group norm divides by the features' own standard deviation, so no global contraction constant is claimed; the gain
    is small enough that the cell converges (tests/verify/problems measures the spectral radius at the fixed point).
    """
    shape = (len(_IMAGES), _CHANNELS, _SIDE, _SIDE)
    cotangent_z, cotangent_y = data.cotangents(65, shape)
    return Problem(
        name="conv-group-norm",
        title="Convolution with group norm on handwritten digits",
        source="Bai, Koltun, Kolter, Multiscale Deep Equilibrium Models, arXiv 2006.08656; Wu, He, arXiv 1803.08494",
        statement=_conv_statement,
        z0=data.normal(64, shape, 0.5),
        args={
            "kernel": data.normal(61, (_CHANNELS, _CHANNELS, 3, 3), 0.125),
            "input_kernel": data.normal(62, (_CHANNELS, 1, 3, 3), 0.5),
            "gain": np.array([0.5, 0.625, 0.4375, 0.5625]),
            "bias": data.normal(63, (_CHANNELS,), 0.125),
            "x": data.digit_images(_IMAGES, _SIDE)[:, None],
        },
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=None,
        contraction_kind="none",
        spectrum="nonlinear",
    )


def _heads(ops: Operations, x: Any) -> Any:
    split = ops.reshape(x, (-1, _TOKENS, _HEADS, _WIDTH // _HEADS))
    return ops.permute(split, (0, 2, 1, 3))


def _attention_statement(ops: Operations, z: Any, args: Any) -> Any:
    query, key, value = (_heads(ops, ops.matmul(z, args[name])) for name in ("query", "key", "value"))
    # The width of a head is 4, so the usual scale 1/sqrt(4) is exact.
    weights = ops.softmax(ops.multiply(0.5, ops.matmul(query, ops.transpose(key))))
    mixed = ops.permute(ops.matmul(weights, value), (0, 2, 1, 3))
    attended = ops.matmul(ops.reshape(mixed, (-1, _TOKENS, _WIDTH)), args["output"])
    injected = ops.matmul(args["x"], args["embedding"])
    return ops.layer_norm(ops.add(attended, injected), args["gain"], args["bias"], _EPS)


def attention() -> Problem:
    """f(z) = layer_norm(attention(z) + x U) on two digits as four tokens each (the quarters), width 8, 2 heads.

    Dot-product attention has no global Lipschitz constant (Kim, Papamakarios, Mnih, arXiv 2006.04710), so none is
    claimed; the gain is small enough that the cell converges.
    """
    shape = (len(_IMAGES), _TOKENS, _WIDTH)
    cotangent_z, cotangent_y = data.cotangents(77, shape)
    images = data.digit_images(_IMAGES, 4).reshape(len(_IMAGES), 2, 2, 2, 2)
    tokens = images.transpose(0, 1, 3, 2, 4).reshape(len(_IMAGES), _TOKENS, 4)
    square = (_WIDTH, _WIDTH)
    return Problem(
        name="attention",
        title="Self-attention cell on handwritten digits",
        source="Bai, Kolter, Koltun, Deep Equilibrium Models, arXiv 1909.01377, section 3; Vaswani et al., 1706.03762",
        statement=_attention_statement,
        z0=data.normal(76, shape, 0.5),
        args={
            "query": data.normal(71, square, 0.375),
            "key": data.normal(72, square, 0.375),
            "value": data.normal(73, square, 0.375),
            "output": data.normal(74, square, 0.375),
            "embedding": data.normal(75, (4, _WIDTH), 1.0),
            "gain": np.array([0.5, 0.5625, 0.625, 0.4375, 0.5, 0.6875, 0.375, 0.5]),
            "bias": data.normal(79, (_WIDTH,), 0.125),
            "x": tokens,
        },
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=None,
        contraction_kind="none",
        spectrum="nonlinear",
    )


PROBLEMS: Declared = {
    "dense-tanh": (dense_tanh, Scope(betas=(0.3, 0.95, 1.25), bitwise=True)),
    "dense-softplus": (dense_softplus, Scope(straight=False)),
    "conv-group-norm": (conv_group_norm, Scope(bitwise=True)),
    "attention": (attention, Scope(bitwise=True)),
}
