"""What a subject says that it does, and is judged by: which gradients, of which solvers, in which dtypes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from verify.case import BITWISE, DTYPES, Case
from verify.methods import METHODS


Adjoint: TypeAlias = Literal[
    "reversible", "default", "unrolled", "checkpointed", "implicit", "implicit-gmres", "phantom"
]
ADJOINTS: tuple[Adjoint, ...] = get_args(Adjoint)

EXACT: frozenset[Adjoint] = frozenset(("reversible", "default", "unrolled", "checkpointed"))
IMPLICIT: frozenset[Adjoint] = frozenset(("implicit", "implicit-gmres"))
SOLVERS = ("reversible", BITWISE, *METHODS)

_STAND_INS: tuple[Adjoint, ...] = ("default", "unrolled", "checkpointed", "reversible", "implicit", "implicit-gmres")

T = TypeVar("T", bound=str)


class ClaimsError(ValueError):
    """Claims that say nothing, or what is not known; the sentence says what to claim."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a subject claims; everything, where nothing else is said.

    Args:
        adjoints: the values of `verify.subject.Settings.adjoint` that it takes: an exact one or an implicit one at
            least. "reversible" claims that steps are undone, and `reconstruct`.
        solvers: how cases may call the solver: "reversible", "reversible-bitwise", and the names of `verify.methods`.
        dtypes: in which f may be evaluated.
        wider_states: whether states may be wider than f.

    Raises:
        ClaimsError: a name that is not known, or no gradient that could be judged.
    """

    adjoints: tuple[Adjoint, ...] = ADJOINTS
    solvers: tuple[str, ...] = SOLVERS
    dtypes: tuple[str, ...] = tuple(DTYPES)
    wider_states: bool = True

    def __post_init__(self) -> None:
        known: dict[str, Iterable[str]] = {"adjoints": ADJOINTS, "solvers": SOLVERS, "dtypes": DTYPES}
        for name, allowed in known.items():
            given: tuple[str, ...] = getattr(self, name)
            unknown = [value for value in given if value not in allowed]
            if unknown or not given or len(set(given)) != len(given):
                raise ClaimsError(
                    f"a subject claims the {name} {', '.join(map(str, given)) or 'none'}: claim some of "
                    f"{', '.join(allowed)}, each once."
                )
        if not (self.exact or self.implicit):
            raise ClaimsError(
                f"a subject claims the adjoints {', '.join(self.adjoints)}, so that no gradient of it would be judged: "
                f"claim an exact one ({', '.join(sorted(EXACT))}) or an implicit one ({', '.join(sorted(IMPLICIT))})."
            )

    @property
    def exact(self) -> bool:
        """Whether it claims the gradient of the steps."""
        return bool(EXACT & set(self.adjoints))

    @property
    def implicit(self) -> bool:
        """Whether it claims the gradient of the fixed point."""
        return bool(IMPLICIT & set(self.adjoints))

    @property
    def reversible(self) -> bool:
        """Whether it claims to undo its steps."""
        return "reversible" in self.adjoints

    def has(self, case: Case) -> bool:
        """Whether a case is within its solvers and dtypes."""
        wider = case.dtype != case.state_dtype and case.arithmetic == "floating"
        return case.solver in self.solvers and case.dtype in self.dtypes and (self.wider_states or not wider)

    def stand_in(self, adjoint: Adjoint) -> Adjoint:
        """The adjoint with which a subject is asked: the one that is meant, or what it has in its place.

        That is one of the same gradient, that of the steps or of the fixed point, where it claims one.
        """
        if adjoint in self.adjoints:
            return adjoint
        claimed: list[Adjoint] = [name for name in _STAND_INS if name in self.adjoints]
        for name in claimed:
            if same_gradient(name, adjoint):
                return name
        return claimed[0]

    @property
    def text(self) -> str:
        """All of it, in words."""
        states = "" if self.wider_states else ", states as wide as f"
        return (
            f"it claims the adjoints {', '.join(self.adjoints)} of the solvers {', '.join(self.solvers)} in "
            f"{', '.join(self.dtypes)}{states}"
        )

    def to_json(self) -> dict[str, Any]:
        """As results hold it."""
        values = asdict(self)
        return {name: value if name == "wider_states" else list(value) for name, value in values.items()}

    @staticmethod
    def from_json(value: object) -> Claims:
        """The claims that results hold.

        Raises:
            ClaimsError: they are none.
        """
        found = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        wider = found.get("wider_states")
        lists = {name: item for name, item in found.items() if isinstance(item, list)}
        names = {field.name for field in fields(Claims)}
        if set(found) != names or set(lists) != names - {"wider_states"} or not isinstance(wider, bool):
            raise ClaimsError(f"the claims of a subject are {value!r}: give {', '.join(sorted(names))}.")
        texts = {name: tuple(map(str, cast("list[object]", item))) for name, item in lists.items()}
        return Claims(**cast("dict[str, Any]", texts), wider_states=wider)


EVERYTHING = Claims()


def same_gradient(one: str, other: str) -> bool:
    """Whether two adjoints give the same gradient up to rounding and tolerances."""
    return any({one, other} <= kind for kind in (EXACT, IMPLICIT))


def claims_of(subject: object) -> Claims:
    """What a subject claims: its attribute `claims`, and everything where it has none.

    Raises:
        ClaimsError: the attribute is no `Claims`.
    """
    claims = getattr(subject, "claims", EVERYTHING)
    if not isinstance(claims, Claims):
        raise ClaimsError(f"the attribute claims of a subject is {claims!r}: give a verify.claims.Claims.")
    return claims
