"""How much faster networks train side by side than one after the other: the 2-10-10-2 net on 100 points."""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

BLOBS = ["dataset=blobs", "probe=[]", "log_every=100"]


def run(options: argparse.Namespace) -> None:
    """Updates of one network a second, for R of them side by side, in the loop as a user runs it (rows every 100 steps,
    a checkpoint at the end), and for a process of its own for each, start-up included."""
    found: dict[int, list[float]] = {R: [] for R in sorted({1, *options.replicas})}
    for _ in range(options.rounds):
        for R in found:
            steps = max(100, options.updates // R)
            found[R].append(R * steps / _wall([f"replicas={R}", f"steps={steps}", f"device={options.device}"]))
    began = time.perf_counter()
    command = [*BLOBS, "steps=1000", f"device={options.device}"]
    with tempfile.TemporaryDirectory() as folder:
        command += [f"hydra.run.dir={folder}/run"]
        threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        subprocess.run([sys.executable, "-m", "runner", *command], check=True, capture_output=True, env=threads)
    apart = 1000 / (time.perf_counter() - began)
    rates = {R: statistics.median(values) for R, values in found.items()}
    rows = [{"replicas": R, "updates_per_second": rate, "against_one": rate / rates[1]} for R, rate in rates.items()]
    frame = pd.DataFrame(
        [*rows, {"replicas": "processes", "updates_per_second": apart, "against_one": apart / rates[1]}]
    )
    table = Table("replicas", "updates / s", "against one", title="2-10-10-2 net on 100 points")
    for row in frame.itertuples():
        table.add_row(str(row.replicas), f"{row.updates_per_second:,.0f}", f"{row.against_one:.1f}")
    Console().print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(options.out / "replicas.csv", index=False)


def _wall(overrides: list[str]) -> float:
    """Seconds that the loop took."""
    import runner

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = runner.run([*BLOBS, *overrides, f"hydra.run.dir={folder}/run"])
        return float(json.loads((path / "meta.json").read_text())["wall_seconds"])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 10, 100, 1000, 5000])
    parser.add_argument("--updates", type=int, default=50_000, help="of a measurement, at least 100 steps")
    parser.add_argument("--rounds", type=int, default=3)
