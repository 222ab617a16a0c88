"""What f takes and makes besides z: the index of the step, and auxiliary outputs such as losses and attention maps."""

import copy
from typing import Any, Literal

import torch

from revdeq._tree import Leaves, Structure, Tree, flatten, unflatten


HasAux = Literal["last", "sum"]


class Extras:
    """The index of the step that f is given, and the auxiliary outputs that it returns beside z.

    Args:
        has_aux: None where f returns z alone; else it returns (z, aux), and a solve the aux of its last evaluation
            within a step, "last", or the sum over all evaluations within steps, "sum".
        with_step: whether f takes the index of the step, an int from 0, as its third argument.
        evaluations_per_step: how many evaluations of f a step takes.

    Attributes:
        position: index of the next evaluation, from 0.
        now: leaves of the auxiliary output of the evaluation made last, with its graph where one is recorded.

    Raises:
        ValueError: has_aux is none of the above.
        TypeError: with_step is no bool.
    """

    def __init__(self, has_aux: HasAux | None, with_step: bool, evaluations_per_step: int) -> None:
        if has_aux not in (None, "last", "sum"):
            raise ValueError(
                f"has_aux is {has_aux!r}; it must be 'last', 'sum', or None where function returns z alone."
            )
        if not isinstance(with_step, bool):
            raise TypeError(f"with_step is {with_step!r}; it must be True or False.")
        self.has_aux: HasAux | None = has_aux
        self.with_step = with_step
        self._per_step = evaluations_per_step
        self.position = 0
        self.now: Leaves = ()
        self._structure: Structure | None = None
        self._kept: list[tuple[int, Leaves]] = []

    def arguments(self) -> tuple[int, ...]:
        """Return what the next evaluation is given after z and args, and count it."""
        self.position += 1
        return ((self.position - 1) // self._per_step,) if self.with_step else ()

    def split(self, returned: Any) -> Tree:
        """Return the z that f returned, and take note of the auxiliary output beside it.

        Args:
            returned: by the evaluation counted last.

        Raises:
            TypeError: it is no pair, or aux holds something else than tensors.
            ValueError: aux has another structure or other shapes than in the first evaluation.
        """
        if self.has_aux is None:
            return returned
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(
                f"has_aux is {self.has_aux!r}, so function must return a pair (z, aux), and it returned a "
                f"{type(returned).__name__}."
            )
        value, aux = returned
        leaves, structure = flatten(aux)
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise TypeError(
                    f"function returned a {type(leaf).__name__} in aux; every leaf of aux must be a tensor."
                )
        if self._structure is None:
            self._structure = structure
        elif structure != self._structure or [x.shape for x in leaves] != [x.shape for x in self.now]:
            raise ValueError(
                "function returned aux of another structure or other shapes than in its first evaluation; they must "
                "be the same at every evaluation."
            )
        self.now = tuple(leaves)
        return value

    def collect(self) -> None:
        """Take the auxiliary output of the evaluation made last into what the solve returns."""
        if self.has_aux is None:
            return
        found = self.now
        if self.has_aux == "sum" and self._kept:
            found = tuple(a + b for a, b in zip(self._kept[-1][1], found, strict=True))
        # Two, since with tolerances one evaluation follows the last step.
        self._kept = [*self._kept[-1:], (self.position, found)]

    def forget(self) -> None:
        """Let go of what was collected."""
        self._kept = []

    def without_graph(self) -> "Extras":
        """Return these with nothing that holds on to a graph."""
        free = copy.copy(self)
        free.now, free._kept = tuple(aux.detach() for aux in self.now), []
        return free

    def collected(self, evaluations: int) -> Leaves:
        """Return what was collected in the first evaluations, and let go of it.

        Args:
            evaluations: how many belong to steps; all that were made, or one less.

        Raises:
            ValueError: has_aux is given and no step was taken, so that there is no auxiliary output.
        """
        if self.has_aux is None:
            return ()
        kept, self._kept = dict(self._kept), []
        if evaluations not in kept:
            raise ValueError("has_aux is given and no step was taken, so there is no auxiliary output; take a step.")
        return kept[evaluations]

    def tree(self, leaves: Leaves) -> Tree:
        """Return the auxiliary output that the leaves stand for; None where there is none."""
        return None if self._structure is None else unflatten(leaves, self._structure)
