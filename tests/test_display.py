"""What a person sees of a run: at a terminal, in a log, in a sweep's table."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from runner import display
from runner.cells import Cells
from runner.display import Display, Latest, Reporter

ROWS: list[Cells] = [
    {"train_loss": 1.0, "test_error": 0.5, "split_gHg": torch.tensor(3.0), "lr": 0.1},
    {"train_loss": 0.5, "test_error": None, "split_gHg": None, "lr": 0.1},
]


def test_what_was_not_measured_at_the_last_step_stays() -> None:
    latest = Latest(steps=9, start=0, interval=0)
    assert all(latest.take(step, row) for step, row in enumerate(ROWS))
    assert latest.values == {"loss": 0.5, "test_error": 0.5, "split_gHg": 3.0}


def test_looks_are_rare_but_for_the_last_step() -> None:
    latest = Latest(steps=2, start=0, interval=1e9)
    assert [latest.take(step, {"train_loss": 1.0}) for step in (0, 1, 2)] == [False, False, True]


def test_of_networks_side_by_side_the_median_is_shown() -> None:
    latest = Latest(steps=0, start=0, interval=0)
    assert latest.take(0, {"train_loss": torch.tensor([1.0, 2.0, 9.0]), "split_gHg": [1.0, None, 3.0]})
    assert latest.values == {"loss": 2.0, "split_gHg": 2.0}


def test_a_sweep_is_told_what_a_run_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LIVE_SECONDS", 0)
    told: list[dict[str, Any]] = []
    with Reporter(told.append, steps=1, start=0) as reporter:
        for step, row in enumerate(ROWS):
            reporter.show(step, row)
    assert told[0] == {"step": 0, "steps": 1}
    assert told[-1]["step"] == 1
    assert told[-1]["values"] == {"loss": 0.5, "test_error": 0.5, "split_gHg": 3.0}


@pytest.mark.parametrize("terminal", [True, False])
def test_the_end_is_shown(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with Display(1, 0, Path("folder"), console) as shown:
        for step, row in enumerate(ROWS):
            shown.show(step, row)
    assert "loss 0.5  test_error 0.5  split_gHg 3" in out.getvalue()
