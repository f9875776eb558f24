"""Settings for all tests."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Networks of a test are tiny: a second thread would only wait for the first."""
    torch.set_num_threads(1)
