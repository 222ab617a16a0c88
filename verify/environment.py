"""What a run ran on: commit, versions, devices, threads, switches and seed; runs are compared by it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from verify.result import ENVIRONMENT_KEYS


PACKAGES = ("revdeq", "verify")
LIBRARIES = ("torch", "numpy", "mpmath", "gmpy2", "python-flint", "scipy", "scikit-learn", "pandas")
SEED = 20_250_912
KEYS = (*ENVIRONMENT_KEYS, *LIBRARIES, "machine", "processors", "tf32", "deterministic")
"""What an environment block says of any run."""


def describe(seed: int = SEED) -> dict[str, Any]:
    """The environment block of a results file.

    Args:
        seed: seed from which every random number of the run is derived.

    Returns:
        JSON values: commit (or "unknown"), dirty, source (digest of the code that ran), one key per library with its
        version, python, platform, machine (system, architecture and vector instructions: what numbers depend on),
        processor count, devices with the reason where one is absent, threads, TF32 and determinism switches, seed.
    """
    source = source_digest(_installed_root())
    commit, dirty = _commit(source)
    return {
        "commit": commit,
        "dirty": dirty,
        "source": source,
        "revdeq": version("revdeq"),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "machine": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "processors": os.cpu_count(),
        "devices": devices(),
        "threads": torch.get_num_threads(),
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.allow_tf32,
        },
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "seed": seed,
    }


def devices() -> list[dict[str, Any]]:
    """CPU and CUDA devices: {device, name, available, reason}; `reason` says why an absent one is absent."""
    found: list[dict[str, Any]] = [
        {"device": "cpu", "name": platform.processor() or platform.machine(), "available": True, "reason": ""}
    ]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found += [
        {"device": f"cuda:{place}", "name": torch.cuda.get_device_name(place), "available": True, "reason": ""}
        for place in range(count)
    ]
    if count == 0:
        found.append({"device": "cuda", "name": "", "available": False, "reason": cuda_absence()})
    return found


def cuda_absence() -> str:
    """Why CUDA cannot be used here, in words; "" where it can."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return "no device on this machine that this torch can use: it was built without CUDA"
    return "no device on this machine"


def source_digest(root: Path) -> str:
    """SHA-256 over the Python files of the packages under `root`: what a resumed run compares itself with."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(b"\0")
            digest.update(path.read_bytes())
            digest.update(b"\0")
    return digest.hexdigest()


def _installed_root() -> Path:
    return Path(__file__).resolve().parent.parent


def version(name: str) -> str:
    """The version of an installed distribution, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit(source: str) -> tuple[str, bool]:
    # A wheel in .tox has no commit of its own: the checkout counts only where it holds the very code that runs.
    for root in dict.fromkeys((_installed_root(), Path.cwd())):
        if not all((root / package / "__init__.py").is_file() for package in PACKAGES) or source_digest(root) != source:
            continue
        head = _git(root, "rev-parse", "HEAD")
        tracked = _git(root, "ls-files", "verify/__init__.py")
        if head and tracked:
            return head, bool(_git(root, "status", "--porcelain", "--", *PACKAGES))
    return "unknown", False


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def command_line() -> str:
    """The command that started this process, as a person would type it."""
    name = Path(sys.argv[0]).name if sys.argv else "python"
    return " ".join([name, *sys.argv[1:]])
