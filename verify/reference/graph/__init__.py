"""A torch function recorded as a graph of ATen operations and evaluated in any arithmetic."""

from verify.reference.graph.errors import (
    DataDependentError as DataDependentError,
    RandomOperationError as RandomOperationError,
    TracingError as TracingError,
    UnsupportedOperationError as UnsupportedOperationError,
    WrongReturnError as WrongReturnError,
)
from verify.reference.graph.graph import (
    Constant as Constant,
    Graph as Graph,
    Input as Input,
    Node as Node,
    Ref as Ref,
    TensorType as TensorType,
)
from verify.reference.graph.interpreter import (
    Program as Program,
    ShapeError as ShapeError,
    check_covered as check_covered,
)
from verify.reference.graph.registry import (
    covered_operations as covered_operations,
    operation_table as operation_table,
    register as register,
    unregister as unregister,
)
from verify.reference.graph.tracing import Traced as Traced, trace as trace
