"""What operator-splitting solvers need of a function besides its values."""

import copy
import math
from typing import Protocol, Self, runtime_checkable

from revdeq._tree import Leaves, Tree, flatten
from revdeq.function import Function
from revdeq.solver.base import SteppingSolver
from revdeq.solver.parameters import validated_number


class Splitting(Protocol):
    """The two parts of z = f(z) = prox(W z + c), that is of 0 in (I - W) z - c + dg(z), where prox belongs to g.

    All methods take and return trees like z; alpha is the step size with which the splitting was made.
    """

    def affine(self, z: Tree) -> Tree:
        """Return W z + c."""
        ...

    def resolvent(self, u: Tree) -> Tree:
        """Return (I + alpha (I - W))^{-1} (u + alpha c)."""
        ...

    def prox(self, u: Tree) -> Tree:
        """Return argmin_x alpha g(x) + ||x - u||^2 / 2."""
        ...


@runtime_checkable
class Splittable(Protocol):
    """A function f(z, args) that offers its splitting, such as `revdeq.nn.Monotone`."""

    def __call__(self, z: Tree, args: Tree) -> Tree:
        """Return f(z)."""
        ...

    def split(self, args: Tree, step_size: float) -> Splitting:
        """Return the splitting for these args, prepared for many steps (the resolvent factored, c evaluated)."""
        ...


class SplittingSolver(SteppingSolver):
    """A solver that iterates on the parts of a function; `solve` binds it to the function that it is given.

    Args:
        step_size: alpha, a number > 0, dimensionless.

    Raises:
        TypeError: step_size is not a real number.
        ValueError: step_size is not positive and finite.
    """

    def __init__(self, step_size: float) -> None:
        self.step_size = validated_number(
            "step_size", step_size, least=0.0, below=math.inf, example=1.0, least_included=False
        )
        self._bound: _Parts | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(step_size={self.step_size!r})"

    def bound_to(self, f: Function | None, max_steps: int) -> Self:
        """Return this solver with the splitting of f's function for f's args.

        Raises:
            TypeError: the function does not offer its splitting.
        """
        function = None if f is None else f.function
        if f is None or not isinstance(function, Splittable):
            raise TypeError(
                f"{self!r} needs a function with a method split(args, step_size) that returns its monotone splitting; "
                f"function is a {type(function).__name__} without one, so give a revdeq.nn.Monotone, or use "
                "Relaxed, Anderson, Broyden or Reversible."
            )
        bound = copy.copy(self)
        bound._bound = _Parts(f, function.split(f.args, self.step_size))
        return bound

    @property
    def parts(self) -> "_Parts":
        """The parts of the function to which this solver is bound.

        Raises:
            TypeError: it is bound to none.
        """
        if self._bound is None:
            raise TypeError(
                f"{self!r} is not bound to a function; hand it to solve, which binds it to a function that offers its "
                "splitting."
            )
        return self._bound


class _Parts:
    """A splitting on flat leaves."""

    def __init__(self, f: Function, splitting: Splitting) -> None:
        self._border, self._splitting = f.border, splitting

    def affine(self, z: Leaves) -> Leaves:
        return self._inward(self._splitting.affine(self._border.tree(z)))

    def resolvent(self, u: Leaves) -> Leaves:
        return self._inward(self._splitting.resolvent(self._border.tree(u)))

    def prox(self, u: Leaves) -> Leaves:
        return self._inward(self._splitting.prox(self._border.tree(u)))

    def _inward(self, tree: Tree) -> Leaves:
        return self._border.inward(flatten(tree)[0])
