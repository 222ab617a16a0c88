"""Imports a module that the user names: his own, also where it has the name of one of ours."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType


_OWN = ("revdeq", "verify", "reports")


def look_where_called() -> None:
    """Look for modules in the current folder too, as `python -m` does and a console script does not."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)


def import_users_module(name: str) -> ModuleType:
    """Import a module by its full name.

    Args:
        name: such as "my_package.model".

    Raises:
        ImportError: it is not there, or it lies in a package of the user's that has the name of one of ours, which
            is taken; the sentence names the file.
    """
    top = name.partition(".")[0]
    if top in _OWN:
        root = Path(__file__).resolve().parents[1]
        elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != root]
        other = PathFinder.find_spec(top, elsewhere)
        if other is not None and other.origin is not None and Path(other.origin).resolve().parents[1] != root:
            raise ImportError(
                f"{other.origin} has the name of {top}, a package of this distribution, so {name} cannot be told "
                "from it: rename that package, or move what you name into a module of another name"
            )
    return importlib.import_module(name)
