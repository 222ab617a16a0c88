"""The files that a subject consists of: what it imported from outside the standard library and installed packages."""

from __future__ import annotations

import hashlib
import site
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path


def loaded_files() -> dict[str, str]:
    """Path and SHA-256 of each file from which this process imported a module, installed ones and our own left out."""
    named = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
    paths = sorted({str(Path(name).resolve()) for name in named if isinstance(name, str)})
    return {path: digest(path) for path in paths if not any(Path(path).is_relative_to(known) for known in _installed())}


def digest(path: str) -> str:
    """SHA-256 of a file; "" where it cannot be read, which is the digest of no file."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def unchanged(recorded: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether what was measured is what would be measured now.

    Args:
        recorded: the files that were loaded when something was measured.
        now: those that loading the subject loads now.
    """
    return all(recorded.get(path) == value for path, value in now.items()) and all(
        value != "" and digest(path) == value for path, value in recorded.items()
    )


@cache
def _installed() -> tuple[Path, ...]:
    own = Path(__file__).resolve().parents[2]
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = [*(sysconfig.get_path(name) for name in names), *site.getsitepackages(), site.getusersitepackages()]
    # Of our own packages the environment block has a digest.
    packages = [own / name for name in ("revdeq", "verify", "reports")]
    return tuple(dict.fromkeys([*packages, *(Path(place).resolve() for place in installed)]))
