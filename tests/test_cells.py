"""Cells of rows: digits, and those of networks side by side."""

import torch

from runner.cells import joined, pick, text, texts
from runner.display import middle
from runner.logger import _number


def test_cells_give_the_number_back_in_its_own_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        for value in torch.randn(100, dtype=dtype) * 10.0 ** torch.arange(-50, 50, dtype=dtype).clamp(-30, 30):
            assert torch.tensor(float(text(value)), dtype=dtype) == value
    assert text(None) == ""
    assert text(torch.tensor(float("nan"))) == "nan"
    assert text(torch.tensor(-float("inf"))) == "-inf"
    assert text(3) == "3"
    assert text(0.1) == "0.1"


def test_one_network_without_a_number_leaves_the_others_theirs() -> None:
    one, two = torch.tensor(1.0), torch.tensor([2.0, 3.0])
    parts = [{"a": one, "b": None, "c": None, "d": [one]}, {"a": two, "b": two, "c": None, "d": [None, one]}]
    cells = joined(parts)
    assert texts(cells["a"], 3) == ["1.0", "2.0", "3.0"]
    assert texts(cells["b"], 3) == ["", "2.0", "3.0"]
    assert texts(cells["c"], 3) == ["", "", ""]
    assert texts(cells["d"], 3) == ["1.0", "", "1.0"]
    assert [texts(cell, 2) for cell in pick(cells, [0, 2]).values()] == [
        ["1.0", "3.0"],
        ["", "3.0"],
        ["", ""],
        ["1.0"] * 2,
    ]
    assert middle(cells["b"]) == 2.5
    assert [_number(cells["b"], place) for place in (0, 1)] == [None, 2.0]
