"""Shared by all tests: one thread unless a test says otherwise, and a global generator that no test depends on."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
