"""The pytest plugin: fixtures for dtypes and devices, for tests with the assertions of `verify.module`.

pytest loads it in every run where this distribution is installed, so it imports nothing but pytest until a fixture is
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    import torch

DTYPES = ("float64", "float32", "bfloat16", "float16")
DEVICES = {"cpu": ("cpu",), "cuda": ("cuda",), "all": ("cpu", "cuda")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say in which dtypes and on which devices tests run."""
    group = parser.getgroup("revdeq", "tests of functions that revdeq iterates")
    group.addoption(
        "--revdeq-dtype",
        action="append",
        choices=DTYPES,
        help="a dtype for the fixture revdeq_dtype; may be given again; float64 and float32 if not said",
    )
    group.addoption(
        "--revdeq-device",
        choices=tuple(DEVICES),
        default="cpu",
        help="devices for the fixture revdeq_device; all is the CPU and CUDA",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a dtype or a device once for each that was chosen."""
    if "revdeq_dtype" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--revdeq-dtype") or ("float64", "float32")
        metafunc.parametrize("revdeq_dtype", list(dict.fromkeys(chosen)), indirect=True)
    if "revdeq_device" in metafunc.fixturenames:
        devices = DEVICES[str(metafunc.config.getoption("--revdeq-device"))]
        metafunc.parametrize("revdeq_device", devices, indirect=True)


@pytest.fixture
def revdeq_dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """A dtype for z0, args and parameters; see --revdeq-dtype."""
    import torch

    return getattr(torch, request.param)


@pytest.fixture
def revdeq_device(request: pytest.FixtureRequest) -> torch.device:
    """A device for z0, args and parameters; see --revdeq-device. A device that is not there fails the test."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.fail("--revdeq-device asks for cuda, and torch finds no CUDA device here; give cpu", pytrace=False)
    return torch.device(request.param)
