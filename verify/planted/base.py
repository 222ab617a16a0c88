"""A small honest reversible solver, written apart from the product: the control, and the body of every planted fault.

Each method is one term of the method (arXiv 2509.12917, section 3), so that a fault overrides one method and nothing
else. Nothing here imports the product's solvers or adjoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from verify.planted.by_method import ByMethod
from verify.planted.integers import Integers
from verify.planted.leaves import leaves_behind, tensors_in
from verify.subject import Function, Settings, Solved


@dataclass
class Linearised:
    """One evaluation of f with its graph kept: the value, and products with the transposed Jacobians.

    Args:
        state: the detached state at which f was evaluated, requiring grad.
        value: f(state), with graph.
        inputs: tensors other than the state whose gradients are wanted.
    """

    state: Tensor
    value: Tensor
    inputs: Sequence[Tensor]

    def pull(self, cotangent: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """K^T cotangent, in the cotangent's dtype, and f_theta^T cotangent for every input."""
        narrow = cotangent.to(self.value.dtype)
        if not self.value.requires_grad:
            return torch.zeros_like(cotangent), [None] * len(self.inputs)
        wanted = [self.state, *self.inputs]
        found = cast(
            "tuple[Tensor | None, ...]",
            torch.autograd.grad(self.value, wanted, narrow, retain_graph=True, allow_unused=True),
        )
        state = found[0]
        return torch.zeros_like(cotangent) if state is None else state.to(cotangent.dtype), list(found[1:])


@dataclass
class Sums:
    """Running sums of the gradients of f's other inputs, in the state dtype or wider than the input.

    Args:
        totals: one per input.
    """

    totals: list[Tensor]

    def add(self, place: int, term: Tensor) -> None:
        """Add one term to one sum."""
        self.totals[place] = self.totals[place] + term.to(self.totals[place].dtype)


@dataclass
class Run:
    """What one solve has, for the backward pass to use.

    Args:
        function: the map f(z, args).
        z0: the start.
        args: what is passed to f.
        settings: how it was solved.
        inputs: tensors other than z0 that f depends on and that require grad.
        random: state of the random generator at the start, which every evaluation starts from.
        y: state y_N.
        z: state z_N.
        extra: room for a fault's own bookkeeping.
    """

    function: Function
    z0: Tensor
    args: Any
    settings: Settings
    inputs: list[Tensor] = field(default_factory=list[Tensor])
    random: Tensor = field(default_factory=torch.get_rng_state)
    y: Tensor = field(default_factory=lambda: torch.empty(0))
    z: Tensor = field(default_factory=lambda: torch.empty(0))
    extra: list[Any] = field(default_factory=list[Any])


class _Attach(torch.autograd.Function):
    """Gives the final states the gradient that the solver's `backward` computes."""

    @staticmethod
    def forward(ctx: Any, solver: Honest, run: Run, z0: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.solver, ctx.run = solver, run
        ctx.save_for_backward(run.y, run.z)
        return run.z.to(z0.dtype, copy=True), run.y.to(z0.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator loses the parameter names)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        solver = cast("Honest", ctx.solver)
        run = cast("Run", ctx.run)
        run.y, run.z = ctx.saved_tensors
        wide = [cotangent.to(run.settings.state_dtype) for cotangent in grad_outputs]
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            start, totals = solver.backward(run, wide[1], wide[0])
        to_inputs = [None if total is None else total.to(x.dtype) for x, total in zip(run.inputs, totals, strict=True)]
        return (None, None, None if start is None else start.to(run.z0.dtype), *to_inputs)


class Honest:
    """The control: reversible iteration and its adjoint, right in every term.

    Attributes:
        name: how selftest names it.
        description: what is wrong with it, one sentence.
        integers: how it solves in bitwise arithmetic.
        by_method: how it solves by another method than the reversible iteration with one beta.
        methods: names of the methods on which it is tried; none where it is tried on that iteration.
    """

    name = "honest"
    description = "nothing is wrong: the control that every check must pass"
    integers = Integers()
    by_method = ByMethod()
    methods: tuple[str, ...] = ()

    # The interface of a subject.

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """As `verify.subject.Subject.solve`."""
        if self.by_method.solves(settings):
            return self.by_method.solve(function, z0, args, settings)
        self.refuse(settings)
        if settings.arithmetic == "bitwise":
            return self.integers.solve(function, z0, args, settings)
        if settings.adjoint != "reversible":
            z, y = self.iterate_with_graph(Run(function, z0, args, settings))
            if settings.adjoint == "implicit":
                z = y = self.implicit(function, z0, args, settings, z)
            return Solved(z, y, self.reported_steps(settings, z0))
        run = Run(function, z0, args, settings)
        run.inputs = [x for x in tensors_in(args) if x.requires_grad]
        with torch.no_grad():
            run.y, run.z = self.forward(run, z0.detach().to(settings.state_dtype))
        z1, y1 = self.attach(run)
        return Solved(z1, y1, self.reported_steps(settings, z0))

    def reconstruct(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> list[tuple[Tensor, Tensor]]:
        """As `verify.subject.Subject.reconstruct`."""
        if settings.arithmetic == "bitwise":
            return self.integers.reconstruct(function, z0, args, settings)
        run = Run(function, z0, args, settings)
        with torch.no_grad():
            y, z = self.forward(run, z0.detach().to(settings.state_dtype))
            rebuilt = [(y, z)]
            for _ in range(settings.num_steps):
                z = self.undo_half(z, self.evaluate(run, y), settings.number)
                y = self.undo_half(y, self.evaluate(run, z), settings.number)
                rebuilt.append((y, z))
        return rebuilt

    # Forward.

    def refuse(self, settings: Settings) -> None:
        """Raise for settings without an inverse or without meaning."""
        if not 0 < settings.number < 2 or settings.number == 1:
            raise ValueError(f"beta is {settings.number}, allowed is 0 < beta < 2, not 1: choose another.")
        if settings.num_steps < 1:
            raise ValueError(f"num_steps is {settings.num_steps}, allowed is 1 or more: take more steps.")

    def reported_steps(self, settings: Settings, z0: Tensor) -> Tensor:
        """The step count that the solution reports."""
        return torch.full(z0.shape[:1], settings.num_steps)

    def num_steps(self, settings: Settings) -> int:
        """The steps taken forward."""
        return settings.num_steps

    def half(self, state: Tensor, value: Tensor, beta: float) -> Tensor:
        """(1 - beta) state + beta value."""
        return (1 - beta) * state + beta * value

    def undo_half(self, state: Tensor, value: Tensor, beta: float) -> Tensor:
        """(state - beta value) / (1 - beta)."""
        return (state - beta * value) / (1 - beta)

    def evaluate(self, run: Run, state: Tensor) -> Tensor:
        """Value of f, in z0's dtype, with the random numbers of the first evaluation."""
        torch.set_rng_state(run.random)
        return run.function(state.to(run.z0.dtype), run.args)

    def forward(self, run: Run, start: Tensor) -> tuple[Tensor, Tensor]:
        """N steps from y = z = start, and what f reads found on the way."""
        beta = run.settings.number
        y = z = start
        for n in range(self.num_steps(run.settings)):
            value = self.discover(run, z) if n == 0 else self.evaluate(run, z)
            y = self.half(y, value, beta)
            z = self.half(z, self.evaluate(run, y), beta)
            self.after_step(run, y, z)
        return y, z

    def after_step(self, run: Run, y: Tensor, z: Tensor) -> None:
        """Called after each forward step."""

    def discover(self, run: Run, z: Tensor) -> Tensor:
        """The first evaluation, recorded, so that the leaves behind f's value become inputs of the gradient."""
        with torch.enable_grad():
            value = self.evaluate(run, z)
        known = {id(x) for x in run.inputs} | {id(run.z0)}
        run.inputs += [leaf for leaf in leaves_behind(value) if id(leaf) not in known]
        return value.detach()

    def attach(self, run: Run) -> tuple[Tensor, Tensor]:
        """The final states with their gradient."""
        z1, y1 = _Attach.apply(self, run, run.z0, *run.inputs)
        return z1, y1

    # Backward.

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Cotangents of the final states to gradients of z0 and of every input."""
        sums = self.sums(run)
        y, z = run.y, run.z
        for n in reversed(range(self.num_steps(run.settings))):
            at_y, previous_z = self.reverse_z(run, n, y, z)
            at_z, previous_y = self.reverse_y(run, n, y, z, previous_z)
            p_y, p_z = self.adjoint_step(run, n, (at_y, at_z), (p_y, p_z), sums)
            y, z = previous_y, previous_z
        return self.start_gradient(p_y, p_z), list(sums.totals)

    def sums(self, run: Run) -> Sums:
        """Zeroed sums, one per input."""
        wide = run.settings.state_dtype
        return Sums([torch.zeros_like(x, dtype=torch.promote_types(x.dtype, wide)) for x in run.inputs])

    def reverse_z(self, run: Run, n: int, y: Tensor, z: Tensor) -> tuple[Linearised, Tensor]:
        """Linearise f at y'; return it and the z before."""
        del n
        at_y = self.linearise(run, y)
        return at_y, self.undo_half(z, at_y.value.detach(), run.settings.number)

    def reverse_y(self, run: Run, n: int, y: Tensor, z: Tensor, previous_z: Tensor) -> tuple[Linearised, Tensor]:
        """Linearise f at z; return it and the y before."""
        del n, z
        at_z = self.linearise(run, previous_z)
        return at_z, self.undo_half(y, at_z.value.detach(), run.settings.number)

    def linearise(self, run: Run, state: Tensor) -> Linearised:
        """One evaluation of f with its graph."""
        torch.set_rng_state(run.random)
        local = state.detach().to(run.z0.dtype).requires_grad_()
        return Linearised(local, run.function(local, run.args), run.inputs)

    def adjoint_step(
        self, run: Run, n: int, at: tuple[Linearised, Linearised], p: tuple[Tensor, Tensor], sums: Sums
    ) -> tuple[Tensor, Tensor]:
        """One step of the adjoint recursion of T0."""
        del n
        beta = self.backward_beta(run.settings)
        (at_y, at_z), (p_y, p_z) = at, p
        coupling, terms_y = at_y.pull(p_z)
        q = self.join(p_y, coupling, beta)
        back, terms_z = at_z.pull(q)
        self.accumulate(run, sums, terms_y, beta, "y")
        self.accumulate(run, sums, terms_z, beta, "z")
        return self.carry_y(q, beta), self.carry_z(p_z, back, beta)

    def backward_beta(self, settings: Settings) -> float:
        """The beta that backward uses."""
        return settings.number

    def join(self, p_y: Tensor, coupling: Tensor, beta: float) -> Tensor:
        """Coupling of the cotangents, q = p_y + beta K(y')^T p_z."""
        return p_y + beta * coupling

    def carry_y(self, q: Tensor, beta: float) -> Tensor:
        """p_y <- (1 - beta) q."""
        return (1 - beta) * q

    def carry_z(self, p_z: Tensor, back: Tensor, beta: float) -> Tensor:
        """p_z <- (1 - beta) p_z + beta K(z)^T q."""
        return (1 - beta) * p_z + beta * back

    def accumulate(self, run: Run, sums: Sums, terms: list[Tensor | None], beta: float, which: str) -> None:
        """Gradient of the inputs, theta += beta f_theta^T (p_z or q)."""
        del run, which
        for place, term in enumerate(terms):
            if term is not None:
                sums.add(place, beta * term.to(sums.totals[place].dtype))

    def start_gradient(self, p_y: Tensor, p_z: Tensor) -> Tensor | None:
        """Gradient of z0, which starts both states."""
        return p_y + p_z

    # The other adjoints.

    def iterate_with_graph(self, run: Run) -> tuple[Tensor, Tensor]:
        """N steps recorded by autograd."""
        y = z = run.z0.to(run.settings.state_dtype)
        for _ in range(self.num_steps(run.settings)):
            y = self.half(y, self.evaluate(run, z), run.settings.number)
            z = self.half(z, self.evaluate(run, y), run.settings.number)
        return z.to(run.z0.dtype), y.to(run.z0.dtype)

    def implicit(self, function: Function, z0: Tensor, args: Any, settings: Settings, z: Tensor) -> Tensor:
        """Attach the implicit gradient to z: w = cotangent + K^T w by iteration, then f_theta^T w."""
        del z0
        at = z.detach().requires_grad_()
        value = function(at, args)
        attached = value - value.detach() + z.detach()

        def solve_adjoint(cotangent: Tensor) -> Tensor:
            w = cotangent
            for _ in range(10_000):
                (product,) = torch.autograd.grad(value, at, w, retain_graph=True)
                following = cotangent + product
                change = torch.linalg.vector_norm(following - w)
                w = following
                if bool(change <= settings.tolerance * torch.linalg.vector_norm(w)):
                    return w
            raise ArithmeticError("the adjoint iteration did not converge: f is not a contraction at the fixed point.")

        attached.register_hook(solve_adjoint)
        return attached
