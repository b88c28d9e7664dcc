"""Clocks, and a table and a CSV for every benchmark."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def medians(calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each; they take turns, after one round to warm up, so that what else the machine does meets all
    of them."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds = timed(call, device)
            if turn:
                found[name].append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def publish(frame: pd.DataFrame, title: str, path: Path, formats: Mapping[str, str]) -> None:
    """Print the columns of `formats`, and keep all of them as a CSV."""
    table = Table(title=title)
    for column, spec in formats.items():
        table.add_column(column.replace("_", " "), justify="left" if spec == "s" else "right")
    for row in frame.to_dict("records"):
        cells = ["" if pd.isna(row[column]) else format(row[column], spec) for column, spec in formats.items()]
        table.add_row(*cells)
    Console().print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
