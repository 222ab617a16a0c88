"""The one way to evaluate f outside a solve: as one map, and without leaving a trace."""

import contextlib
from collections.abc import Callable, Generator
from typing import TypeVar

from torch.nn.attention import SDPBackend, sdpa_kernel

from revdeq._tree import Tree, flatten
from revdeq.function import Function


State = TypeVar("State")


@contextlib.contextmanager
def probing(
    function: Callable[[State, Tree], State], z: State, args: Tree = (), *, twice: bool = False
) -> Generator[Callable[[State], State]]:
    """Give a function of z alone whose every evaluation finds what the first one found, and put everything back.

    Random numbers, the buffers that f updates and running statistics are at the end of the block what they were before;
    see NOTE [f is one map] in `revdeq.function.surroundings`.

    Args:
        function: callable of (z, args) that returns the structure of z.
        z: a state, a tensor or pytree of floating tensors.
        args: any pytree, handed to function.
        twice: whether its derivative will be differentiated, which fused attention does not allow; the same attention
            in plain operations is evaluated then.

    Yields:
        z -> function(z, args), evaluated in the grad mode that holds.

    Raises:
        TypeError, ValueError: function is not callable, or z is no state; on evaluation, what it returns does not fit.
    """
    f = Function(function, z, args)

    def evaluate(z: State) -> State:
        with sdpa_kernel(SDPBackend.MATH) if twice else contextlib.nullcontext():
            return f.border.tree(f(f.border.inward(flatten(z)[0])))

    try:
        yield evaluate
    finally:
        f.surroundings.forget()
