"""From a torch function and an example input to graphs of core ATen operations: the function's and its VJP's.

Why make_fx and not torch.export: f is any callable with captured tensors (a closure, a bound method, a partial), and
its derivative must be that of the user's own code, custom autograd functions included; export takes modules and stops
at the forward. Two passes: the first records what runs, decomposed to core ATen, the VJP through torch's autograd; the
second replays that record under functionalization, so that in-place writes and views become values. Captured tensors
are turned into inputs by a function mode, not by parsing the function. Attention runs its plain formula, not a fused
kernel. Everything is traced at the dtypes given; the casts between floating dtypes are recorded, and the interpreter
drops them on purpose: the graph means the function of real numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.fx
from numpy.typing import NDArray
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta, set_stack_trace
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_map, tree_unflatten

from verify.reference.graph.capture import CapturedTensorChangedError, Substitution, captured_tensors
from verify.reference.graph.constants import with_exact_constants
from verify.reference.graph.conversion import (
    exact_values,
    graph_from_fx,
    plain_tensor,
    refuse_symbolic_shapes,
    tensor_type,
)
from verify.reference.graph.errors import DataDependentError, TracingError
from verify.reference.graph.graph import Graph, Input
from verify.reference.graph.refusals import refuse_other_return, refuse_random
from verify.reference.graph.user_lines import first_line, note_user_line, user_frame


KEPT_WHOLE = frozenset(
    {
        "aten.gelu_backward.default",
        "aten.elu_backward.default",
        "aten.hardsigmoid_backward.default",
        "aten.hardswish_backward.default",
        "aten.upsample_nearest2d.default",
        "aten.upsample_nearest2d_backward.default",
        "aten.upsample_bilinear2d.default",
        "aten.upsample_bilinear2d_backward.default",
        "aten.upsample_linear1d.default",
        "aten.upsample_linear1d_backward.default",
        "aten.upsample_trilinear3d.default",
        "aten.upsample_trilinear3d_backward.default",
        "aten.upsample_bicubic2d.default",
        "aten.softshrink.default",
        "aten.softshrink_backward.default",
        "aten.hardshrink_backward.default",
        *(
            f"aten.{kind}{n}d{way}.default"
            for kind in ("upsample_nearest", "_upsample_nearest_exact", "replication_pad")
            for n in (1, 2, 3)
            for way in ("", "_backward")
        ),
        "aten.upsample_bicubic2d_backward.default",
    }
)
"""Operations that torch's decompositions would write with rounded constants or with float32 index arithmetic."""


@dataclass(frozen=True)
class Traced:
    """A function of a state and arguments, recorded.

    Attributes:
        forward: inputs are the state's leaves, the floating leaves of args and the captured tensors; outputs are f's.
        backward: the same inputs and a cotangent for each output of f; outputs are f's, named "f", and the gradients
            of `leaves`, by name, so that who knows the state gets both from one evaluation of f;
            or None.
        values: the tensors at which it was traced, by input name (cotangents not among them).
        state: names of the state's leaves.
        leaves: names of all leaves that have a gradient: the state's, then floating args, then captured tensors that
            require grad.
        casts: the casts between floating dtypes inside f, as sentences; the interpreter drops them.
        cuts: lines of the user's source at which something that a gradient could flow through is detached, or computed
            without one (`no_grad`, the forward of a custom function): there torch's backward may not be f's derivative.
        no_backward: why there is no backward, or "".
    """

    forward: Graph
    backward: Graph | None
    values: dict[str, torch.Tensor]
    state: tuple[str, ...]
    leaves: tuple[str, ...]
    casts: tuple[str, ...]
    cuts: tuple[str, ...] = ()
    no_backward: str = ""

    @property
    def linearised(self) -> Graph:
        """The recorded backward.

        Raises:
            TracingError: there is none; the message says why.
        """
        if self.backward is None:
            raise TracingError(self.no_backward)
        return self.backward

    @cached_property
    def vjp(self) -> Graph:
        """The linearised graph with the gradients alone as outputs."""
        return self.linearised.restricted(self.leaves)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The values as exact numpy arrays: float64, int64 or bool."""
        return {name: exact_values(tensor) for name, tensor in self.values.items()}


def leaf_names(prefix: str, tree: Any) -> tuple[list[str], list[Any], Any]:
    """The leaves of a pytree with dotted names, `prefix` alone for a bare leaf, and its structure."""
    with_paths, spec = tree_flatten_with_path(tree)
    names: list[str] = []
    for path, _ in with_paths:
        dotted = keystr(path).replace("['", ".").replace("']", "").replace("[", ".").replace("]", "")
        names.append(prefix + dotted)
    return names, [leaf for _, leaf in with_paths], spec


def trace(function: Callable[[Any, Any], Any], z: Any, args: Any = (), *, with_backward: bool = True) -> Traced:
    """Record f and its VJP at an example input.

    Args:
        function: called as function(z, args); returns what z looks like.
        z: state, a pytree of floating tensors.
        args: a pytree; its floating tensors get gradients, other leaves are constants.
        with_backward: whether to record torch's backward, too.

    Returns:
        The graphs and the values of their inputs.

    Raises:
        WrongReturnError: f returns another structure, shape or dtype than z's.
        DataDependentError: control flow or a shape depends on values.
        RandomOperationError: f draws random numbers.
        TracingError: z is not floating, f raises, writes into a captured tensor, or cannot be recorded.
    """
    state_names, state_leaves, z_spec = leaf_names("z0", z)
    args_names, args_leaves, args_spec = leaf_names("args", args)
    for name, leaf in zip(state_names, state_leaves, strict=True):
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            kind = leaf.dtype if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            raise TracingError(f"the state {name} is {kind}; a state is a floating tensor or a pytree of them")
    if not state_leaves:
        raise TracingError("the state z0 has no tensor; give a floating tensor or a pytree of them")
    captured = _call_once(function, z, args)
    for name, tensor in (*captured.items(), *zip(args_names, args_leaves, strict=True)):
        if isinstance(tensor, torch.Tensor) and tensor.is_complex():
            raise TracingError(
                f"{name} is complex; inside the function complex numbers may be used, but what it is given or captures "
                "must be real: keep its parts, view_as_real of it, and make it complex inside"
            )
    inputs: dict[str, torch.Tensor] = dict(zip(state_names, state_leaves, strict=True))
    inputs.update(
        {name: leaf for name, leaf in zip(args_names, args_leaves, strict=True) if isinstance(leaf, torch.Tensor)}
    )
    inputs.update(captured)
    # Integers and bools are constants, so that shapes may depend on them.
    inputs = {
        name: plain_tensor(name, tensor if tensor.layout == torch.strided else tensor.to_dense())
        for name, tensor in inputs.items()
        if tensor.is_floating_point()
    }
    leaves = (
        *state_names,
        *(name for name in args_names if name in inputs and inputs[name].is_floating_point()),
        *(name for name, tensor in captured.items() if tensor.requires_grad),
    )
    names = list(inputs)
    # An argument that the function also captures is one leaf, so both uses see its replacement.
    originals = {**dict(zip(args_names, args_leaves, strict=True)), **captured}
    pairs = [(name, originals[name]) for name in inputs if name not in state_names]

    cuts: dict[str, None] = {}

    def note(operation: Callable[..., Any], given: Any) -> None:
        place = note_user_line()
        if place and _cuts(operation, given):
            cuts[place] = None

    def evaluate(*tensors: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        given = dict(zip(names, tensors, strict=True))
        wanted = {name: given[name].detach().requires_grad_(name in leaves) for name in names}
        state = tree_unflatten([wanted[name] for name in state_names], z_spec)
        arguments = [
            wanted[name] if name in wanted else leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
            for name, leaf in zip(args_names, args_leaves, strict=True)
        ]
        substitution = Substitution([(original, wanted[name]) for name, original in pairs], note)
        with substitution, torch.enable_grad():
            returned = function(state, tree_unflatten(arguments, args_spec))
        set_stack_trace([])
        outputs, spec = tree_flatten(returned)
        refuse_other_return(outputs, spec, state_leaves, z_spec)
        return outputs, [wanted[name] for name in leaves]

    def forward(*tensors: torch.Tensor) -> list[torch.Tensor]:
        return [output.detach() for output in evaluate(*tensors)[0]]

    def linearised(*tensors: torch.Tensor) -> list[torch.Tensor]:
        outputs, wanted = evaluate(*tensors[: len(names)])
        values = [output.detach() for output in outputs]
        used = [
            (output, cotangent)
            for output, cotangent in zip(outputs, tensors[len(names) :], strict=True)
            if output.requires_grad
        ]
        if not used:
            return [*values, *(torch.zeros_like(leaf) for leaf in wanted)]
        given = [cotangent for _, cotangent in used]
        gradients: Any = torch.autograd.grad([output for output, _ in used], wanted, given, allow_unused=True)
        pieces = zip(gradients, wanted, strict=True)
        return [*values, *(torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in pieces)]

    kinds = dict.fromkeys(state_names, "state") | dict.fromkeys(captured, "captured")
    graph_inputs = [Input(name, kinds.get(name, "argument"), tensor_type(inputs[name])) for name in names]  # type: ignore[arg-type]
    cotangent_names = [name.replace("z0", "cotangent", 1) for name in state_names]
    cotangents = [torch.zeros_like(leaf) for leaf in state_leaves]
    tensors = [inputs[name].detach() for name in names]
    recorded = _record(forward, tensors)
    recorded_linearised, no_backward = None, "torch's backward was not recorded"
    if with_backward:
        try:
            recorded_linearised, no_backward = _record(linearised, [*tensors, *cotangents]), ""
        except TracingError as error:
            no_backward = f"torch's backward cannot be recorded: {error}"
    cotangent_types = [tensor_type(leaf) for leaf in state_leaves]
    pieces = zip(cotangent_names, cotangent_types, strict=True)
    all_inputs = [*graph_inputs, *(Input(name, "cotangent", kind) for name, kind in pieces)]
    forward_graph = graph_from_fx(recorded, graph_inputs, state_names)
    all_outputs = [*(name.replace("z0", "f", 1) for name in state_names), *leaves]
    linearised_graph: Graph | None = None
    refuse_random((forward_graph,))
    if recorded_linearised is not None:
        linearised_graph = graph_from_fx(recorded_linearised, all_inputs, all_outputs)
        linearised_graph = with_exact_constants(linearised_graph, forward_graph)
        refuse_random((linearised_graph,))
    values = {name: tensor.detach() for name, tensor in inputs.items()}
    return Traced(
        forward_graph,
        linearised_graph,
        values,
        tuple(state_names),
        leaves,
        _casts(forward_graph),
        tuple(cuts),
        no_backward,
    )


def _call_once(function: Callable[..., Any], z: Any, args: Any) -> dict[str, torch.Tensor]:
    if not callable(function):
        raise TracingError(f"the function is {function!r}; it must be callable as function(z, args)")
    try:
        return captured_tensors(function, tree_map(torch.clone, z), args)
    except CapturedTensorChangedError as error:
        raise TracingError(str(error)) from error
    except Exception as error:
        where = user_frame(error)
        raise TracingError(
            f"the function raised {type(error).__name__} ({first_line(error)}){f' at {where}' if where else ''}; "
            "it is called as function(z0, args)"
        ) from error


_DETACHING = frozenset({torch.detach, torch.Tensor.detach, torch.Tensor.detach_, torch.Tensor.data.__get__})  # type: ignore[attr-defined]


def _cuts(operation: Callable[..., Any], given: Any) -> bool:
    """Whether an operation leaves out of the gradient what it is given."""
    if not (operation in _DETACHING or not torch.is_grad_enabled()):
        return False
    return any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in tree_flatten(given)[0])


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = core_aten_decompositions()
    return {operation: rule for operation, rule in table.items() if str(operation) not in KEPT_WHOLE}


def _record(function: Callable[..., Any], tensors: list[torch.Tensor]) -> torch.fx.GraphModule:
    """Trace, then replay under functionalization; every failure becomes a sentence."""
    options: dict[str, Any] = {
        "decomposition_table": _decompositions(),
        "tracing_mode": "fake",
        "_allow_non_fake_inputs": True,
    }
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng(devices=[]):
            with preserve_node_meta():
                first = make_fx(function, **options)(*tensors)
            refuse_symbolic_shapes(first)

            def replay(*values: torch.Tensor) -> Any:
                with preserve_node_meta():
                    return torch.fx.Interpreter(first).run(*values)

            return make_fx(functionalize(replay, remove="mutations_and_views"), **options)(*tensors)
    except TracingError:
        raise
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise DataDependentError(user_frame(error)) from error
    except Exception as error:
        text = str(error)
        if "trying to get value" in text or "data-dependent" in text.lower() or "_local_scalar_dense" in text:
            raise DataDependentError(user_frame(error)) from error
        where = user_frame(error)
        raise TracingError(
            f"the function cannot be recorded as a graph: {type(error).__name__}: {first_line(error)}"
            f"{f' at {where}' if where else ''}"
        ) from error


def _casts(graph: Graph) -> tuple[str, ...]:
    types = [entry.type for entry in (*graph.inputs, *graph.constants)]
    found: dict[str, None] = {}
    for node in graph.nodes:
        target = node.outputs[0]
        if node.operation == "aten._to_copy.default" and target is not None:
            source = types[node.arguments[0].value]
            if source.is_real and target.is_real and source.dtype != target.dtype:
                found[f"{source.dtype} to {target.dtype} at {node.location or 'an unrecorded line'}"] = None
        types.append(target or types[0])
    return tuple(found)
