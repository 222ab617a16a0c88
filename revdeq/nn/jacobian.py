"""Jacobian regularisation: a penalty that keeps an equilibrium model easy to solve."""

from collections.abc import Callable
from typing import cast

import torch

from revdeq._probe import probing
from revdeq._tree import Tree, flatten, unflatten
from revdeq.function.linearisation import PartialLeaves
from revdeq.solver.parameters import validated_count


def jacobian_penalty(
    function: Callable[[Tree, Tree], Tree],
    z: Tree,
    args: Tree = (),
    *,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return an unbiased estimate of ||K||_F^2 / d with K = df/dz at z, to be added to the loss with a weight.

        estimate = mean over the samples of ||epsilon^T K||^2 / d,      epsilon ~ N(0, I)

    d is the number of components of z, the batch included. z is taken as a constant; the penalty is differentiable in
    the parameters of function and in args. Each sample costs one VJP, recorded for the derivative, after one
    evaluation.

    Args:
        function: callable of (z, args), such as `DEQ.function`.
        z: the state at which to penalise, usually `Solution.z1`; a tensor or pytree of tensors.
        args: any pytree, handed to function unchanged.
        samples: number of random vectors, an int >= 1.
        generator: source of the random vectors; None for the global one of z's device.

    Returns:
        A tensor of shape (), in float32 or the widest dtype of z.

    Raises:
        TypeError: function is not callable, z holds something else than floating tensors, samples is not an int,
            or generator is not a torch.Generator.
        ValueError: z has no tensor, or samples < 1.

    References:
        Bai, Koltun, Kolter, Stabilizing equilibrium models by Jacobian regularization, arXiv 2106.14342, equation (6).
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989, DOI 10.1080/03610918908812806.
    """
    if not callable(function):
        raise TypeError(f"function is a {type(function).__name__}; it must be callable as function(z, args).")
    validated_count("samples", samples, example=1)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}; it must be a torch.Generator on z's device, or None.")
    leaves, structure = flatten(z)
    if not leaves:
        raise ValueError("z has no tensor in it; it must be a tensor or a pytree with at least one tensor.")
    for leaf in leaves:
        if not (isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point):
            raise TypeError(f"z holds {leaf!r}; every leaf must be a tensor of a real floating dtype.")
    recorded = torch.is_grad_enabled()
    dtype = torch.float32
    for leaf in leaves:
        dtype = torch.promote_types(dtype, leaf.dtype)
    total = torch.zeros((), dtype=dtype, device=leaves[0].device)
    points = [leaf.detach().requires_grad_() for leaf in leaves]
    with probing(function, unflatten(points, structure), args, twice=recorded) as f, torch.enable_grad():
        values = [v for v in flatten(f(unflatten(points, structure)))[0] if v.requires_grad]
        for _ in range(samples if values else 0):
            noise = [torch.randn(v.shape, dtype=v.dtype, device=v.device, generator=generator) for v in values]
            # A leaf of z that function ignores gives None, and adds nothing.
            products = cast(
                PartialLeaves,
                torch.autograd.grad(values, points, noise, create_graph=recorded, retain_graph=True, allow_unused=True),
            )
            total = total + sum(p.to(dtype).square().sum() for p in products if p is not None)
    penalty = total / (samples * max(1, sum(leaf.numel() for leaf in leaves)))
    return penalty if recorded else penalty.detach()
