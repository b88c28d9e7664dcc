"""What every probe promises."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class Misnamed(Probe):
    names = ("length",)

    def measure(self, point: Point) -> Mapping[str, Tensor | None]:
        return {"lenght": torch.zeros(())}


def test_a_column_that_was_not_announced_is_named() -> None:
    with pytest.raises(ValueError, match=r"^Misnamed.measure should return its columns length, found lenght$"):
        Misnamed().measure_all(lambda place: None, with_gg=False)  # type: ignore[arg-type, return-value]
