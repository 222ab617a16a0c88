"""What the modules of a package declare: a new module is found, and no list has to name it."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any


def declared(package: ModuleType, attribute: str) -> dict[str, Any]:
    """The attribute of every module of a package that has it, by the module's name; subpackages are left out.

    Args:
        package: the package, which may be the one that is being imported.
        attribute: what modules declare.
    """
    found: dict[str, Any] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if not module.ispkg:
            imported = importlib.import_module(f"{package.__name__}.{module.name}")
            if hasattr(imported, attribute):
                found[module.name] = getattr(imported, attribute)
    return found
