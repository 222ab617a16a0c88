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
    sampling as sampling,
    shape as shape,
    special as special,
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
    "sampling",
    "shape",
    "special",
)
