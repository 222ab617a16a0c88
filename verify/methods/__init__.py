"""What each solver is defined to do, stated once in `Operations`, for torch and every arithmetic of the reference.

A module whose name has no underscore in front declares `METHODS`: the solver in every way in which it may be asked for,
where that is measured, and the iterates that define it. A new one is one file here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from verify.discovery import declared
from verify.methods._method import (
    Betas as Betas,
    BetasTable as BetasTable,
    Map as Map,
    Method as Method,
    State as State,
)


METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for methods in declared(sys.modules[__name__], "METHODS").values() for method in methods}
)
"""Every method by the name that cases give it."""


__all__ = [
    "METHODS",
    "Betas",
    "BetasTable",
    "Map",
    "Method",
    "State",
]
