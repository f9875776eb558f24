"""Settings for all tests."""

import hypothesis
import pytest
import torch

# No deadline: machines are shared. The same examples everywhere: a change is judged by what it changes.
hypothesis.settings.register_profile("geounet", deadline=None, derandomize=True)
hypothesis.settings.load_profile("geounet")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Networks of a test are tiny: a second thread would only wait for the first."""
    torch.set_num_threads(1)
