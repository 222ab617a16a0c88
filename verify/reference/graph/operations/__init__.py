"""The interpreter's rules, one module for each family of ATen operations; importing them registers the rules."""

from verify.reference.graph.operations import (
    activation as activation,
    comparison as comparison,
    convolution as convolution,
    counting as counting,
    creation as creation,
    decomposition as decomposition,
    elementwise as elementwise,
    fourier as fourier,
    indexing as indexing,
    linear as linear,
    normalization as normalization,
    ordering as ordering,
    pooling as pooling,
    reduction as reduction,
    resampling as resampling,
    shape as shape,
)


FAMILIES: tuple[str, ...] = (
    "activation",
    "comparison",
    "convolution",
    "counting",
    "creation",
    "decomposition",
    "elementwise",
    "fourier",
    "indexing",
    "linear",
    "normalization",
    "ordering",
    "pooling",
    "reduction",
    "resampling",
    "shape",
)
