"""One solve and its backward pass, watched from outside: values, gradients, calls of f, what was kept and changed.

Nothing here looks inside the subject. f is wrapped: the wrapper writes down each state at which f is evaluated and
counts the vector-Jacobian products that go through its value.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

from verify.problems.problem import Problem
from verify.problems.splitting import SplitFunction
from verify.subject import Settings, Subject
from verify.trial.memory import Saved


Binding = Literal["args", "module", "closure"]


@dataclass
class Calls:
    """What was seen at f's border.

    Args:
        states: the states at which f was evaluated, detached copies, in order.
        cotangents: those of f's value in the vector-Jacobian products through it, detached copies, in order.
    """

    states: list[Tensor] = field(default_factory=list[Tensor])
    cotangents: list[Tensor] = field(default_factory=list[Tensor])


class _SeeVjp(torch.autograd.Function):
    """The identity; its backward writes down what comes through."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, calls: Calls) -> Tensor:
        ctx.calls = calls
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        ctx.calls.cotangents.append(grad_outputs[0].detach().clone())
        return grad_outputs[0], None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one solve and one backward pass gave.

    Args:
        z1: z_N.
        y1: y_N.
        gradients: leaf name -> gradient, None where the leaf got none.
        num_steps: the step count that the subject reports.
        beta: what the subject says that it chose for beta.
        forward_states: states at which forward evaluated f.
        backward_states: states at which backward evaluated f.
        cotangents: those of f's value in the vector-Jacobian products of f.
        saved_bytes: bytes that autograd kept between the passes.
        changed: what the solve or its backward pass changed and should not have, in words.
        seconds: wall time of both passes.
    """

    z1: Tensor
    y1: Tensor
    gradients: dict[str, Tensor | None]
    num_steps: Tensor
    beta: float | Tensor | None
    forward_states: tuple[Tensor, ...]
    backward_states: tuple[Tensor, ...]
    cotangents: tuple[Tensor, ...]
    saved_bytes: int
    changed: tuple[str, ...]
    seconds: float

    @property
    def evaluations(self) -> int:
        """Evaluations of f, forward and backward together."""
        return len(self.forward_states) + len(self.backward_states)

    @property
    def vjps(self) -> int:
        """Vector-Jacobian products of f."""
        return len(self.cotangents)


def watched(function: Callable[..., Tensor], calls: Calls) -> Callable[..., Tensor]:
    """`function` with its calls written into `calls`; a module stays a module, and a splitting is kept."""
    if isinstance(function, torch.nn.Module):
        return _WatchedModule(function, calls)
    if isinstance(function, SplitFunction):
        return SplitFunction(watched(function.evaluate, calls), function.splitting)

    def watch(z: Tensor, args: Any = ()) -> Tensor:
        calls.states.append(z.detach().clone())
        return cast("Tensor", _SeeVjp.apply(function(z, args), calls))

    return watch


class _WatchedModule(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module, calls: Calls) -> None:
        super().__init__()
        self.inner = inner
        self._calls = calls

    def forward(self, z: Tensor, args: Any = ()) -> Tensor:
        self._calls.states.append(z.detach().clone())
        return cast("Tensor", _SeeVjp.apply(self.inner(z, args), self._calls))


def bind(
    problem: Problem, binding: Binding, dtype: torch.dtype, device: str
) -> tuple[Callable[..., Tensor], Tensor, Any, dict[str, Tensor]]:
    """A problem with its args passed, made parameters, or captured.

    Returns:
        (function, z0, what to pass as args, leaf name -> the tensor whose gradient is the leaf's).
    """
    z0, args = problem.inputs(dtype, device, requires_grad=True)
    if binding == "args":
        return problem.split_function, z0, args, {"z0": z0} | {f"args.{name}": value for name, value in args.items()}
    if binding == "module":
        module = problem.module(dtype, device)
        named = dict(module.named_parameters())
        return module, z0, (), {"z0": z0} | {f"args.{name}": named[name] for name in problem.args}
    function, captured = problem.closure(dtype, device)
    return function, z0, (), {"z0": z0} | {f"args.{name}": value for name, value in captured.items()}


def observe(
    subject: Subject,
    problem: Problem,
    settings: Settings,
    dtype: torch.dtype,
    device: str = "cpu",
    binding: Binding = "args",
) -> Observation:
    """Solve, run one backward pass of L = <cotangent_z, z1> + <cotangent_y, y1>, and write down what happened.

    Args:
        subject: what is verified.
        problem: the equilibrium problem.
        settings: how the subject is asked to solve.
        dtype: dtype of z0, args and f.
        device: where.
        binding: how f gets its args.

    Raises:
        Exception: whatever the subject raises.
    """
    function, z0, args, leaves = bind(problem, binding, dtype, device)
    cotangent_z, cotangent_y = problem.cotangents(dtype, device)
    before = {name: value.detach().clone() for name, value in leaves.items()}
    random, grad_mode = torch.get_rng_state(), torch.is_grad_enabled()
    calls, saved = Calls(), Saved()
    try:
        begun = time.perf_counter()
        with saved.watch():
            solved = subject.solve(watched(function, calls), z0, args, settings)
        forward = len(calls.states)
        saved_bytes = saved.bytes()
        after_forward = torch.is_grad_enabled()
        torch.set_grad_enabled(grad_mode)
        z1, y1 = solved.z1.detach().clone(), solved.y1.detach().clone()
        _backward([solved.z1, solved.y1], [cotangent_z, cotangent_y])
        seconds = time.perf_counter() - begun
        changed = [f"{name} was changed" for name, value in leaves.items() if not same_bits(value, before[name])]
        if not same_bits(z1, solved.z1) or not same_bits(y1, solved.y1):
            changed.append("the result was overwritten by backward")
        if not torch.equal(random, torch.get_rng_state()):
            changed.append("the random state was advanced")
        if after_forward != grad_mode or torch.is_grad_enabled() != grad_mode:
            changed.append("grad mode was switched")
    finally:
        torch.set_rng_state(random)
        torch.set_grad_enabled(grad_mode)
    return Observation(
        z1=z1,
        y1=y1,
        gradients={name: value.grad for name, value in leaves.items()},
        num_steps=solved.num_steps.detach(),
        beta=solved.beta,
        forward_states=tuple(calls.states[:forward]),
        backward_states=tuple(calls.states[forward:]),
        cotangents=tuple(calls.cotangents),
        saved_bytes=saved_bytes,
        changed=tuple(changed),
        seconds=seconds,
    )


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and values; NaN equals NaN."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return bool(((left == right) | (left.isnan() & right.isnan())).all())


def _backward(outputs: list[Tensor], cotangents: list[Tensor]) -> None:
    pairs = [(output, cotangent) for output, cotangent in zip(outputs, cotangents, strict=True) if output.requires_grad]
    if pairs:
        torch.autograd.backward([output for output, _ in pairs], [cotangent for _, cotangent in pairs])
