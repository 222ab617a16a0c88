"""The interpreter's rules, one module for each family of ATen operations; importing them registers the rules."""

from importlib import import_module
from pkgutil import iter_modules


FAMILIES: tuple[str, ...] = tuple(sorted(module.name for module in iter_modules(__path__) if module.name != "numbers"))
"""The modules here; `numbers` has what several of them use."""

for _family in FAMILIES:
    import_module(f"{__name__}.{_family}")
