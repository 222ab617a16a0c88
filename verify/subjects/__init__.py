"""Subjects that come with the project, and what each claims: adapters of plain torch and of other libraries.

An adapter is imported when it is asked for by name, so that a library which is not there costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from verify.claims import Claims


_DTYPES = ("float64", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A subject by its name.

    Args:
        module: the module that has it as `subject`.
        claims: what it claims.
        library: the module that it needs besides torch, and the extra of ours that installs it; "" for none.
    """

    module: str
    claims: Claims
    library: str = ""


SUBJECTS: Mapping[str, Adapter] = MappingProxyType(
    {
        "plain-loop": Adapter(
            module="verify.subjects.plain_loop",
            claims=Claims(
                adjoints=("default", "unrolled"),
                solvers=("reversible", "reversible-schedule", "relaxed", "relaxed-tolerance"),
                dtypes=_DTYPES,
            ),
        ),
        "torch-checkpoint": Adapter(
            module="verify.subjects.torch_checkpoint",
            claims=Claims(
                adjoints=("default", "unrolled", "checkpointed"),
                solvers=("reversible", "reversible-schedule", "relaxed", "relaxed-tolerance"),
                dtypes=_DTYPES,
            ),
        ),
        "torchdeq": Adapter(
            module="verify.subjects.torchdeq_library",
            claims=Claims(
                adjoints=("implicit", "phantom"),
                solvers=("relaxed", "relaxed-tolerance", "anderson-tolerance", "broyden-tolerance"),
                dtypes=("float64", "float32"),
                wider_states=False,
            ),
            library="torchdeq",
        ),
    }
)
"""Every subject that comes with the project, besides revdeq itself."""
