"""The interpreter's rules, one module for each family of ATen operations; importing them registers the rules."""

from verify.reference.graph.operations import (
    activation as activation,
    comparison as comparison,
    convolution as convolution,
    creation as creation,
    elementwise as elementwise,
    indexing as indexing,
    linear as linear,
    normalization as normalization,
    pooling as pooling,
    reduction as reduction,
    shape as shape,
)


FAMILIES: tuple[str, ...] = (
    "activation",
    "comparison",
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "shape",
)
