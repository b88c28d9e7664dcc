"""Clocks, and a table and a CSV for every benchmark."""

import ctypes
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


def peak_memory(call: Callable[[], object], warm_up: Callable[[], object], device: torch.device) -> float:
    """MiB beyond what is held before the call, on cuda in the allocator's count, on the CPU in the process's, in which
    nothing else may have run. `warm_up`: the same on little data, after which libraries and compiled kernels are in
    memory."""
    if device.type == "cuda":
        call()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    warm_up()
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed and kept is used again, and not counted
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before_mib = _high_water()
    call()
    return _high_water() - before_mib


def _high_water() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


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
