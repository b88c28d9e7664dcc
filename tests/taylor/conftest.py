"""What every test of the expansion checks."""

from typing import Any

import pytest

from runner.curvature.taylor.tensor import Taylor


@pytest.fixture(autouse=True)
def whole_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every coefficient has the shape of the value: a smaller one would be right until something sums over it."""
    original = Taylor.__init__

    def checked(self: Taylor, c: Any) -> None:
        original(self, c)
        assert all(k is None or k.shape == c[0].shape for k in c), [None if k is None else tuple(k.shape) for k in c]

    monkeypatch.setattr(Taylor, "__init__", checked)
