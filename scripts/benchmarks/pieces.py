"""What a training step spends its time on: the network's forward and backward pass, the loss and the update of the
weights, which every loop has, and what the runner adds to them. Medians over steps without probes, in percent.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from benchmarks.common import publish
from benchmarks.loops import SETTINGS, experiment, loop
from runner import train
from runner.experiment import Experiment
from runner.networks import Networks
from runner.progress import Progress

STEP = "a step"
PIECES: dict[str, tuple[Any, str]] = {
    STEP: (train, "take_step"),
    "forward pass": (Experiment, "outputs"),
    "loss": (Experiment, "losses"),
    "backward pass": (torch.Tensor, "backward"),
    "update of the weights": (train, "update"),
    "error": (Experiment, "errors"),
    "|g|": (Networks, "grad_norm"),
    "seeds of random draws": (Experiment, "seed_draws"),
    "rate": (train, "set_rate"),
    "has it diverged?": (train, "retire"),
    "row of metrics.csv": (Progress, "add_row"),
    "row of epochs.csv": (Progress, "end_epoch"),
    "sums of the epoch": (train, "add_step"),
}


def run(options: argparse.Namespace) -> None:
    rows = []
    for setting in options.settings:
        made = experiment(setting, "probe=[]", f"device={options.device}")
        with loop(made, options.steps) as turn:
            turn()  # to warm up
            with ExitStack() as stack:
                found = {piece: stack.enter_context(timed(*where)) for piece, where in PIECES.items()}
                turn()
        seconds = {piece: statistics.median(times) for piece, times in found.items() if times}
        rows += [
            {"setting": setting, "piece": piece, "microseconds": 1e6 * taken, "percent": 100 * taken / seconds[STEP]}
            for piece, taken in seconds.items()
        ]
    formats = {"setting": "s", "piece": "s", "microseconds": ",.0f", "percent": ".2f"}
    publish(pd.DataFrame(rows), "a training step", options.out / "pieces.csv", formats)


@contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """The seconds of every call of this function, inside."""
    function: Callable[..., Any] = getattr(owner, name)
    found: list[float] = []

    def call(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments, **named)
        found.append(time.perf_counter() - began)
        return result

    with patch.object(owner, name, call):
        yield found


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["default", "resnet8"])
    parser.add_argument("--steps", type=int, default=50)
