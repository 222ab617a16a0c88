"""Every rule of the interpreter against torch's own float64 result of the same operation.

The bound is derived, not chosen: balls at 48 bits enclose whatever an evaluation gives whose elementary results are
right to 2^-48, that is to 32 units of float64, so torch's result must lie inside; mpmath's at 50 digits must lie inside
the balls at 130 bits, whose radius is 10^10 times its rounding.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flint import arb

from verify.reference.arithmetic import Arithmetic, Multiprecision, Undecided
from verify.reference.arithmetic.balls import Balls
from verify.reference.graph import covered_operations, register, unregister
from verify.reference.graph.conversion import dtype_name, exact_values
from verify.reference.graph.operations.numbers import truncated
from verify.reference.graph.registry import family_of, rule_for


T = torch.tensor
F64 = torch.float64


def some(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 7 * len(shape) + sum(shape))
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=F64)


def positive(*shape: int, seed: int = 0) -> torch.Tensor:
    return some(*shape, seed=seed, low=0.2, high=3.0)


def counts(*shape: int, high: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def flags(*shape: int, seed: int = 0) -> torch.Tensor:
    return counts(*shape, high=2, seed=seed).bool()


X, Y, Z = some(3, 4), some(3, 4, seed=1), some(4, seed=2)
P = positive(3, 4)
INTEGERS, OTHERS = counts(3, 4), counts(3, 4, seed=1)
IMAGE, KERNEL = some(2, 4, 6, 5), some(6, 2, 3, 2)
BACK = [True, True, True]
NORM = torch.ops.aten.native_layer_norm(X, [4], Z, Z, 1e-5)

# name -> calls (positional arguments, keyword arguments); names without overload mean every registered overload
CASES: dict[str, list[tuple[list, dict]]] = {}


def case(names: str, *arguments: object, **options: object) -> None:
    for name in names.split():
        CASES.setdefault(f"aten.{name}", []).append((list(arguments), options))


case("add.Tensor sub.Tensor rsub.Tensor", X, Z)
case("add.Tensor sub.Tensor rsub.Tensor", X, Y, alpha=0.3)
case("add.Tensor sub.Tensor mul.Tensor", INTEGERS, OTHERS)
case("add.Tensor mul.Tensor div.Tensor", INTEGERS, X)
case("add.Scalar sub.Scalar rsub.Scalar mul.Scalar div.Scalar", X, 0.1)
case("mul.Tensor div.Tensor", X, P)
case("_neg_view.default _neg_view_copy.default", X)
case("neg.default abs.default sign.default sgn.default relu.default", X)
case("neg.default abs.default sign.default relu.default", INTEGERS - 2)
case("reciprocal.default square.default sqrt.default rsqrt.default", P)
case("exp.default exp2.default expm1.default sin.default cos.default tan.default sinh.default cosh.default", X)
case("tanh.default erf.default erfc.default asinh.default sigmoid.default silu.default mish.default", X)
case("log.default log1p.default log2.default log10.default", P)
case("atanh.default", X / 3)
for exponent in (2, 3.0, -2, 0, 0.5, -1.5):
    case("pow.Tensor_Scalar", P, exponent)
case("pow.Tensor_Scalar", X, 3)
case("pow.Tensor_Scalar", INTEGERS, 2)
case("pow.Tensor_Tensor", P, X)
case("pow.Scalar", 1.7, X)
case("hypot.default logaddexp.default maximum.default minimum.default", X, Y)
case("maximum.default minimum.default", INTEGERS, OTHERS)
case("clamp.default", X, -0.5, 0.7)
case("clamp.default", X, None, 0.7)
case("clamp.Tensor", X, -P, P)
case("clamp_min.default clamp_max.default", X, 0.1)
case("clamp_min.Tensor clamp_max.Tensor", X, Y)
case("addcmul.default", X, Y, Z, value=0.7)
case("addcdiv.default", X, Y, P, value=0.7)
case("lerp.Scalar", X, Y, 0.3)
case("lerp.Tensor", X, Y, P)
case("_to_copy.default", X, dtype=F64)
case("_to_copy.default", 3 * X, dtype=torch.int64)
case("_to_copy.default", X, dtype=torch.bool)
case("_to_copy.default", INTEGERS, dtype=F64)
case("_to_copy.default", INTEGERS, dtype=torch.bool)
case("trunc.default fix.default floor.default ceil.default", 3 * X)
case("fmod.Scalar remainder.Scalar", 3 * X, 0.75)
case("fmod.Scalar remainder.Scalar", INTEGERS - 3, 2)
case("fmod.Tensor remainder.Tensor", 3 * X, P)
case("trunc.default floor.default ceil.default", T([-2.0, 0.0, 5.0], dtype=F64))

case("lt.Tensor le.Tensor gt.Tensor ge.Tensor eq.Tensor ne.Tensor", X, Y)
case("lt.Tensor le.Tensor gt.Tensor ge.Tensor eq.Tensor ne.Tensor", INTEGERS, OTHERS)
case("lt.Scalar le.Scalar gt.Scalar ge.Scalar eq.Scalar ne.Scalar", X, 0.1)
case("lt.Scalar le.Scalar gt.Scalar ge.Scalar eq.Scalar ne.Scalar", T([0.0, 1.0, -1.0], dtype=F64), 0)
case("logical_and.default logical_or.default logical_xor.default", flags(3, 4), flags(3, 4, seed=1))
case("logical_and.default", INTEGERS, X)
case("logical_not.default bitwise_not.default", flags(3, 4))
case("bitwise_and.Tensor bitwise_or.Tensor", INTEGERS, OTHERS)
case("bitwise_and.Scalar bitwise_or.Scalar", INTEGERS, 3)
case("where.self", flags(3, 4), X, Y)
case("where.self", flags(3, 4), INTEGERS, OTHERS)
case("where.ScalarOther", flags(3, 4), X, 0.5)
case("where.ScalarSelf", flags(3, 4), 0.5, X)
case("where.Scalar", flags(3, 4), 0.5, 1.5)
case("masked_fill.Scalar", X, flags(3, 4), -float("inf"))
case("masked_fill.Tensor", X, flags(3, 4), T(0.5, dtype=F64))
case("isinf.default isnan.default", T([0.0, float("inf"), -float("inf")], dtype=F64))
case("isinf.default", INTEGERS)

case("softplus.default", X)
case("softplus.default", 20 * X, 2.0, 20.0)
case("log_sigmoid_forward.default hardtanh.default hardsigmoid.default hardswish.default", 3 * X)
case("elu.default", X, 1.67, 1.05, 0.9)
case("elu_backward.default", Y, 1.67, 1.05, 0.9, False, X)
case("elu_backward.default", Y, 1.67, 1.05, 0.9, True, torch.ops.aten.elu(X, 1.67, 1.05, 0.9))
case("celu.default", X, 1.3)
case("gelu.default", X)
case("gelu.default", X, approximate="tanh")
case("gelu_backward.default", Y, X)
case("gelu_backward.default", Y, X, approximate="tanh")
case("leaky_relu.default", X, 0.02)
case("prelu.default", X, Z)
case("_prelu_kernel.default", X, Z.reshape(1, 4))
case("hardswish_backward.default", Y, 3 * X)
case("threshold_backward.default", Y, X, 0)

case("full.default", [2, 3], 0.1, dtype=F64)
case("full.default", [2, 3], True)
case("full.default", [2, 3], 4)
case("full_like.default", X, 0.1)
case("full_like.default", X, 1, dtype=torch.bool)
case("zeros.default ones.default", [2, 3], dtype=F64)
case("zeros.default ones.default", [2, 3], dtype=torch.int64)
case("zeros_like.default ones_like.default", X)
case("new_zeros.default new_ones.default", X, [2])
case("new_full.default", X, [2], 0.3)
case("scalar_tensor.default", 0.1, dtype=F64)
case("arange.default", 5)
case("arange.start", 1, 5)
case("arange.start_step", 0.5, 3.1, 0.25, dtype=F64)
case("arange.start_step", 0, 7, 2)
case("eye.default", 3, dtype=F64)
case("eye.m", 3, 2, dtype=torch.int64)

case("clone.default alias.default alias_copy.default detach.default detach_copy.default lift_fresh_copy.default", X)
case("lift_fresh.default contiguous.default t.default t_copy.default", X)
case("view.default view_copy.default _unsafe_view.default reshape.default _reshape_copy.default", X, [2, -1])
case("permute.default permute_copy.default", IMAGE, [2, 0, 3, 1])
case("transpose.int transpose_copy.int", IMAGE, 1, -1)
case("expand.default expand_copy.default", Z, [3, -1])
case("unsqueeze.default unsqueeze_copy.default", X, -1)
case("squeeze.default squeeze_copy.default", X[:, None])
case("squeeze.dim squeeze_copy.dim", X[:, None], 1)
case("squeeze.dim", X, 1)
case("squeeze.dims squeeze_copy.dims", X[:, None, :, None], [1, -1])
case("cat.default stack.default", [X, Y], 1)
case("cat.default", [torch.zeros(0, dtype=F64), X])
case("slice.Tensor slice_copy.Tensor", X, 1, 0, 3, 2)
case("slice.Tensor", X, 0, -2, 9223372036854775807)
case("select.int select_copy.int", X, 1, -1)
case("split.Tensor split_copy.Tensor", X, 2, 0)
case("split_with_sizes.default split_with_sizes_copy.default", X, [1, 3], 1)
case("unbind.int unbind_copy.int", X, 1)
case("flip.default", X, [0, -1])
case("roll.default", X, [1, 2], [0, 1])
case("roll.default", X, [3])
case("repeat.default", X, [2, 1, 3])
case("constant_pad_nd.default", X, [1, 2, -1, 1], 0.3)
case("constant_pad_nd.default", INTEGERS, [1, 2], 1)
case("diagonal.default diagonal_copy.default", IMAGE, 1, 2, 3)
case("unfold.default unfold_copy.default", IMAGE, 2, 3, 2)
case("as_strided.default as_strided_copy.default", X, [2, 2], [5, 2], 1)
case("tril.default triu.default", IMAGE, 1)

case("index.Tensor _unsafe_index.Tensor", X, [counts(2, 3, high=3), counts(3, high=4)])
case("index.Tensor", IMAGE, [None, T([0, 2, 2]), None])
case("index_select.default", X, 1, T([3, 0, 0]))
case("gather.default", X, 1, counts(3, 2, high=4))
case("embedding.default", X, counts(2, 2, high=3))
case("embedding_dense_backward.default", some(5, 4), T([0, 2, 2, 1, 0]), 3, 1, False)
case("index_put.default _unsafe_index_put.default", X, [T([0, 2])], Y[:2])
case("index_put.default", X, [T([0, 2, 0, 0]), T([1, 1, 1, 3])], some(4), True)
case("index_put.default", INTEGERS, [T([0, 2, 0, 0])], OTHERS[:1], True)
case("index_add.default", X, 1, T([0, 1, 0]), Y[:, :3], alpha=0.5)
case("scatter_add.default", X, 1, counts(3, 4, high=2), Y)
case("scatter.src", X, 1, T([[0, 2], [1, 3], [3, 0]]), Y)
case("scatter.value", X, 1, T([[0, 2], [1, 3], [3, 0]]), 0.3)
case("slice_scatter.default", X, Y[:, :2], 1, 0, 4, 2)
case("select_scatter.default", X, Z, 0, 1)
case("diagonal_scatter.default", X, Z[:3], 1)
case("as_strided_scatter.default", X, Y[:2, :2], [2, 2], [5, 2], 1)
case("copy.default", X, Z)

case("sum.default mean.default max.default min.default prod.default", X)
case("sum.dim_IntList", X, [1], True)
case("sum.dim_IntList", flags(3, 4), [0])
case("sum.default prod.default", INTEGERS)
case("mean.dim", IMAGE, [1, -1])
case("var.correction std.correction var_mean.correction", X, [1])
case("var.correction", IMAGE, [0, 2], correction=0, keepdim=True)
case("prod.dim_int", X, 1, True)
case("cumsum.default", X, 1)
case("cumsum.default", INTEGERS, 0)
for order in (2, 1, 3, float("inf"), 1.5):
    case("linalg_vector_norm.default", X, order, [1], True)
case("amax.default amin.default", X, [0], True)
case("max.dim min.dim", X, 1)
case("max.dim", X, 0, True)
case("argmax.default", X, 1)
case("argmax.default", X)
case("any.default all.default", flags(3, 4))
case("any.dim all.dim", flags(3, 4), 1)
case("any.dims all.dims", X, [0, 1])
case("_softmax.default _log_softmax.default", X, 1, False)
MASKED = X.masked_fill(T([[0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 1]]).bool(), -float("inf"))
case("_softmax.default", MASKED, 1, False)
case("_safe_softmax.default", MASKED, 0)
case("logsumexp.default", X, [1])
case("_softmax_backward_data.default", Y, X.softmax(1), 1, F64)
case("_log_softmax_backward_data.default", Y, X.log_softmax(1), 1, F64)

case("mm.default matmul.default", X, Y.T)
case("bmm.default", some(2, 3, 4), some(2, 4, 2))
case("mv.default matmul.default", X, Z)
case("dot.default", Z, Y[0])
case("addmm.default", Y, X, some(4, 4), beta=0.5, alpha=2)
case("addmm.default", Z, X, some(4, 4), beta=0)
case("baddbmm.default", some(2, 3, 2), some(2, 3, 4), some(2, 4, 2))
case("addmv.default", Y[:, 0], X, Z)
case("addbmm.default", some(3, 2), some(2, 3, 4), some(2, 4, 2))
case("linear.default", X, some(2, 4), some(2))

FRAME = ([2, 1], [1, 2], [1, 2], False, [0, 0], 2)
case("convolution.default", IMAGE, KERNEL, some(6), *FRAME)
case("convolution.default", some(2, 5, 8), some(3, 5, 3), None, [1], [1], [2], False, [0], 1)
case("convolution.default", some(2, 6, 3, 4), KERNEL, some(4), [2, 1], [1, 0], [1, 2], True, [1, 0], 2)
case("convolution_backward.default", some(2, 6, 3, 7), IMAGE, KERNEL, [6], *FRAME, BACK)
case(
    "convolution_backward.default",
    some(2, 4, 6, 6),
    some(2, 6, 3, 4),
    KERNEL,
    [4],
    [2, 1],
    [1, 0],
    [1, 2],
    True,
    [1, 0],
    2,
    BACK,
)

POOL = ([3, 2], [2, 1], [1, 1], True, False, None)
case("avg_pool2d.default", IMAGE, *POOL)
case("avg_pool2d.default", IMAGE, [2], [2], [1], True, True)
case("avg_pool2d.default", IMAGE[0], [2, 2], [], [0], False, True, 3)
case("avg_pool2d_backward.default", torch.ones_like(torch.ops.aten.avg_pool2d(IMAGE, *POOL)) * 0.3, IMAGE, *POOL)
case("_adaptive_avg_pool2d.default", IMAGE, [4, 3])
case("_adaptive_avg_pool2d_backward.default", some(2, 4, 4, 3), IMAGE)
case("max_pool2d_with_indices.default", IMAGE, [3, 2], [2, 1], [1, 1], [1, 2], True)
case("max_pool2d_with_indices.default", IMAGE, [2, 2])
case(
    "max_pool2d_with_indices_backward.default",
    some(2, 4, 3, 2),
    IMAGE,
    [2, 2],
    [],
    [0, 0],
    [1, 1],
    False,
    torch.ops.aten.max_pool2d_with_indices(IMAGE, [2, 2])[1],
)
case("upsample_nearest2d.default", IMAGE, [9, 10])
case("upsample_nearest2d_backward.default", some(2, 4, 9, 10), [9, 10], [2, 4, 6, 5])

case("native_layer_norm.default", X, [4], Z, Y[0], 1e-5)
case("native_layer_norm.default", IMAGE, [6, 5], None, None, 1e-5)
case("native_group_norm.default", IMAGE, some(4), some(4, seed=3), 2, 4, 30, 2, 1e-5)
STATISTICS = (IMAGE, some(4), None, some(4, seed=3), positive(4))
case("_native_batch_norm_legit_no_training.default", *STATISTICS, 0.1, 1e-5)
case("native_batch_norm.default", *STATISTICS, False, 0.1, 1e-5)
case("native_batch_norm.default", IMAGE, None, None, None, None, True, 0.1, 1e-5)
case("_weight_norm_interface.default", X, P[:, :1].contiguous(), 0)
case("_weight_norm_interface_backward.default", Y, X, P[:, :1].contiguous(), X.norm(dim=1, keepdim=True), 0)

case("atan.default", X)
case("asin.default acos.default", X / 3)
case("atan2.default", X, Y)
case("round.default", 3 * X)
case("softshrink.default", X)
case("softshrink_backward.default hardshrink_backward.default", Y, X, 0.5)
case("sort.default", X, 0, True)
case("sort.stable", X, stable=True, dim=1)
case("topk.default", X, 2, 1)
case("kthvalue.default", X, 2, 1)
case("median.dim", X, 1, True)
case("cummax.default", X, 1)
case("cumprod.default", X, 1)
case("logcumsumexp.default", X, 1)
ROWS = torch.tensor([[0, 1, 1, 0], [2, 2, 1, 0]])
for reduce in ("sum", "prod", "mean", "amax", "amin"):
    case("scatter_reduce.two", X, 0, ROWS, Y[:2], reduce)
    case("scatter_reduce.two", X, 0, ROWS, Y[:2], reduce, include_self=False)
case("index_reduce.default", X, 0, torch.tensor([1, 1, 0]), Y, "mean")
case("segment_reduce.default", X, "mean", lengths=torch.tensor([1, 2]))
for reduce in ("sum", "mean", "max", "min", "prod"):
    SEGMENTS = torch.segment_reduce(P, reduce, lengths=torch.tensor([1, 2]))
    case("_segment_reduce_backward.default", Y[:2], SEGMENTS, P, reduce, lengths=torch.tensor([1, 2]))
case("lgamma.default digamma.default", P)
case("erfinv.default", X / 3)
case("rrelu_with_noise_functional.default", X, Y, 0.1, 0.3, False)
case("rrelu_with_noise_backward.default", Y, X, Y, 0.1, 0.3, False, False)
GRID = some(2, 3, 2, 2, low=-1.3, high=1.3)
for padding in (0, 1):
    for aligned in (False, True):
        case("grid_sampler_2d.default", IMAGE, GRID, 0, padding, aligned)
        case("grid_sampler_2d.default", IMAGE, GRID, 1, padding, aligned)
        case("grid_sampler_2d_backward.default", some(2, 4, 3, 2), IMAGE, GRID, 0, padding, aligned, [True, True])
case("grid_sampler_2d_backward.default", some(2, 4, 3, 2), IMAGE, GRID, 1, 0, False, [True, True])
BAGS = (some(6, 3), torch.tensor([0, 5, 2, 2, 1]), torch.tensor([0, 2]))
case("_embedding_bag_forward_only.default _embedding_bag.default", *BAGS, False, 1)
case("_embedding_bag_forward_only.default", *BAGS, False, 0, False, some(5))
case("adaptive_max_pool2d.default", IMAGE, [3, 2])
POOLED = torch.ops.aten.adaptive_max_pool2d(IMAGE, [3, 2])[1]
case("adaptive_max_pool2d_backward.default", some(2, 4, 3, 2), IMAGE, POOLED)
case("_cdist_forward.default", X, Y, 2.0, 2)
case("_cdist_forward.default", X, Y, 1.0, None)
case("_cdist_backward.default", some(3, 3), X, Y, 2.0, torch.cdist(X, Y))
case("_euclidean_dist.default", X, 3 + Y)
case("_trilinear.default", X, some(2, 4, 4), Y, [1, 3], [0], [1, 2], [2, 3])

SQUARE = some(2, 3, 3) + 3 * torch.eye(3, dtype=F64)
LOWER, SOLVED = torch.tril(SQUARE), torch.ops.aten._linalg_solve_ex(SQUARE, some(2, 3, 2))
case("_linalg_solve_ex.default", SQUARE, some(2, 3, 2))
case("_linalg_solve_ex.default", SQUARE, some(2, 2, 3), left=False)
case("_linalg_solve_ex.default", SQUARE, some(2, 3))
case("linalg_lu_solve.default", SOLVED[1], SOLVED[2], some(2, 3, 2))
case("linalg_lu_solve.default", SOLVED[1], SOLVED[2], some(2, 3, 2), adjoint=True)
case("linalg_inv_ex.default _linalg_det.default _linalg_slogdet.default linalg_matrix_exp.default", SQUARE)
case("linalg_cholesky_ex.default", SQUARE @ SQUARE.mT)
case("linalg_cholesky_ex.default", SQUARE @ SQUARE.mT, upper=True)
case("linalg_solve_triangular.default", LOWER, some(2, 3, 2), upper=False)
case("linalg_solve_triangular.default", LOWER.mT, some(2, 2, 3), upper=True, left=False)

SIGNAL, VOLUME = some(2, 3, 5), some(1, 2, 3, 4, 2)
case("upsample_linear1d.default", SIGNAL, [8], False)
case("upsample_linear1d_backward.default", some(2, 3, 8), [8], [2, 3, 5], True)
case("upsample_bilinear2d.default upsample_bicubic2d.default", IMAGE, [9, 3], False)
case("upsample_bilinear2d.default upsample_bicubic2d.default", IMAGE, [9, 3], True)
case(
    "upsample_bilinear2d_backward.default upsample_bicubic2d_backward.default",
    some(2, 4, 9, 3),
    [9, 3],
    [2, 4, 6, 5],
    False,
)
case("upsample_trilinear3d.default", VOLUME, [6, 2, 4], False)
case("upsample_trilinear3d_backward.default", some(1, 2, 6, 2, 4), [6, 2, 4], [1, 2, 3, 4, 2], False)
case("upsample_nearest1d.default _upsample_nearest_exact1d.default", SIGNAL, [8])
case("_upsample_nearest_exact2d.default", IMAGE, [9, 10])
case("upsample_nearest3d.default _upsample_nearest_exact3d.default", VOLUME, [6, 4, 4])
case("upsample_nearest1d_backward.default _upsample_nearest_exact1d_backward.default", some(2, 3, 8), [8], [2, 3, 5])
case("_upsample_nearest_exact2d_backward.default", some(2, 4, 9, 10), [9, 10], [2, 4, 6, 5])
case(
    "upsample_nearest3d_backward.default _upsample_nearest_exact3d_backward.default",
    some(1, 2, 6, 4, 4),
    [6, 4, 4],
    [1, 2, 3, 4, 2],
)
case("replication_pad1d.default", SIGNAL, [2, 1])
case("replication_pad1d_backward.default", some(2, 3, 8), SIGNAL, [2, 1])
case("replication_pad2d.default", IMAGE, [1, 2, 0, 1])
case("replication_pad2d_backward.default", some(2, 4, 7, 8), IMAGE, [1, 2, 0, 1])
case("replication_pad3d.default", VOLUME, [1, 0, 2, 1, 0, 1])
case("replication_pad3d_backward.default", some(1, 2, 4, 7, 3), VOLUME, [1, 0, 2, 1, 0, 1])
case("avg_pool3d.default", VOLUME, [2, 2, 1], [1, 2, 1], [1, 0, 0])
case("avg_pool3d.default", VOLUME, [2, 3, 2], [1, 2, 1], [1, 1, 0], True, False)
case("avg_pool3d_backward.default", some(1, 2, 2, 2, 2), VOLUME, [2, 2, 1], [1, 2, 1], 0, False, True, None)

# torch's hardsigmoid_backward multiplies by the float32 nearest to 1/6 in every dtype: 3e-8 off in float64.
WRONG_IN_TORCH = {"aten.hardsigmoid_backward.default"}
UNWRITTEN = {
    "aten.empty.memory_format": ([[2, 3]], {"dtype": F64}),
    "aten.empty_like.default": ([X], {}),
    "aten.new_empty.default": ([X, [2]], {}),
    "aten.new_empty_strided.default": ([X, [2, 3], [3, 1]], {}),
    "aten.empty_strided.default": ([[2, 3], [3, 1]], {"dtype": F64}),
}
ALIASES = {
    "aten._native_batch_norm_legit.default": "aten.native_batch_norm.default",
}


def entered(ops: Arithmetic, item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        values = exact_values(item)
        return ops.convert(values) if values.dtype.kind == "f" else values
    if isinstance(item, torch.dtype):
        return dtype_name(item)
    return [entered(ops, part) for part in item] if isinstance(item, list) else item


def evaluate(ops: Arithmetic, name: str, arguments: list, options: dict) -> list:
    given = {key: entered(ops, value) for key, value in options.items()}
    result = rule_for(name)(ops, *(entered(ops, item) for item in arguments), **given)
    return list(result) if isinstance(result, tuple) else [result]


def torch_result(name: str, arguments: list, options: dict) -> list[torch.Tensor]:
    _, operation, overload = name.split(".")
    result = getattr(getattr(torch.ops.aten, operation), overload)(*arguments, **options)
    return list(result) if isinstance(result, (tuple, list)) else [result]


def as_ball(mpf: Any) -> arb:
    sign, mantissa, exponent, _ = mpf._mpf_
    if not mantissa:
        return arb(float(mpf))
    return arb((-int(mantissa) if sign else int(mantissa), exponent))


MULTILINEAR = ("mm.", "bmm.", "mv.", "dot.", "matmul.", "linear.", "add", "badd", "convolution", "index_add.")
WEIGHTED = ("upsample_b", "upsample_l", "upsample_t", "linalg_matrix_exp")


def rounding_of_products(name: str, arguments: list, options: dict) -> list[torch.Tensor | float]:
    """n u |a| |b| for the operations that `arb_mat` sums without intermediate rounding, 0 for the others."""
    if not name.removeprefix("aten.").startswith((*MULTILINEAR, *WEIGHTED)) or ".add." in name:
        return [0.0] * 8
    tensors = [item for item in arguments if isinstance(item, torch.Tensor)]
    terms = max(item.numel() for item in tensors)
    sizes = [item.abs() if isinstance(item, torch.Tensor) and item.dtype == F64 else item for item in arguments]
    return [terms * 2.0**-53 * item for item in torch_result(name, sizes, options)]


def check_case(name: str, arguments: list, options: dict) -> None:
    wanted = torch_result(name, arguments, options)
    wide = evaluate(Balls(48), name, arguments, options)
    narrow = evaluate(Balls(130), name, arguments, options)
    digits = evaluate(Multiprecision(50), name, arguments, options)
    margins = rounding_of_products(name, arguments, options)
    for expected, around, tight, number, margin in zip(wanted, wide, narrow, digits, margins, strict=False):
        if not hasattr(around, "shape"):
            continue
        assert tuple(around.shape) == tuple(expected.shape)
        exact = exact_values(expected)
        if around.dtype != object:
            assert (around == exact).all()
            assert (number == exact).all()
            continue
        room = (torch.zeros_like(expected) + margin).numpy()
        places = zip(around.flat, exact.flat, room.flat, tight.flat, number.flat, strict=True)
        for ball, value, width, small, mpf in places:
            assert ball.overlaps(arb(float(value), float(width))), (name, ball, value)
            assert ball.overlaps(small)
            assert small.is_exact() or not small.rad() > abs(small).upper() * 2.0**-90 + 2.0**-120
            assert small.overlaps(as_ball(mpf)), (name, small, mpf)


@pytest.mark.parametrize("name", sorted(CASES))
def test_rule_encloses_torch_in_float64(name: str) -> None:
    for arguments, options in CASES[name]:
        check_case(name, arguments, options)


def test_every_covered_operation_has_a_case() -> None:
    # Operations of complex numbers are tried in whole functions.
    covered = {name for name in covered_operations() if family_of(name) != "fourier"}
    covered.remove("aten._linalg_check_errors.default")
    assert covered == set(CASES) | set(UNWRITTEN) | set(ALIASES) | WRONG_IN_TORCH
    for name, original in ALIASES.items():
        assert rule_for(name) is rule_for(original)


def test_at_least_eighty_operations_are_covered() -> None:
    assert len({name.split(".")[1] for name in covered_operations()}) >= 80


@pytest.mark.parametrize("name", sorted(UNWRITTEN))
def test_unwritten_memory_shows_as_not_a_number(name: str) -> None:
    arguments, options = UNWRITTEN[name]
    (balls,) = evaluate(Balls(64), name, arguments, options)
    assert tuple(balls.shape) == tuple(torch_result(name, arguments, options)[0].shape)
    assert all(ball.is_nan() for ball in balls.flat)


def test_hardsigmoid_backward_divides_by_six_exactly() -> None:
    (balls,) = evaluate(Balls(48), "aten.hardsigmoid_backward.default", [Y, 3 * X], {})
    exact = torch.where((3 * X).abs() < 3, Y / 6, 0 * Y).numpy()
    assert all(ball.contains(arb(float(value))) for ball, value in zip(balls.flat, exact.flat, strict=True))


def slightly_wrong_tanh(ops: Arithmetic, x: Any) -> Any:
    return ops.multiply(ops.tanh(x), ops.convert(1 + 2.0**-40))


def test_wrong_rule_is_caught_by_the_same_check() -> None:
    original = unregister("aten.tanh.default")
    try:
        register("aten.tanh.default")(slightly_wrong_tanh)
        with pytest.raises(AssertionError):
            check_case("aten.tanh.default", [X], {})
    finally:
        register("aten.tanh.default", replace=True)(original)
    check_case("aten.tanh.default", [X], {})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**70])
def test_integer_part_that_is_not_known_is_undecided(value: float) -> None:
    for ops in (Balls(48), Multiprecision(20, strict=False)):
        with pytest.raises(Undecided, match="too large for float64 to find it, or not finite"):
            truncated(ops, ops.convert(torch.full((2,), value, dtype=F64).numpy()))
