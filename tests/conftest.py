"""What every test starts from: its own seed, one thread, and the process-wide settings of torch as they were."""

import hashlib
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def own_surroundings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seed torch from the test's id, so that a test does not depend on which others ran; restore what it changed."""
    state = torch.get_rng_state()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.manual_seed(int.from_bytes(hashlib.sha256(request.node.nodeid.encode()).digest()[:6], "big"))
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
