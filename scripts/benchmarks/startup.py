"""How long the command takes before it trains: whole processes, the median of some, after one to warm up the disk's
cache. A run's time to its first step is that of a run with steps=1, with its end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from benchmarks.common import medians, publish

COMMANDS = {
    "--help": ["--help"],
    "--cfg job": ["--cfg", "job"],
    "default, to the first step": ["steps=1"],
    "default without probes": ["steps=1", "probe=[]"],
    "Tiny ImageNet, to the first step": [
        "dataset=tiny_imagenet", "steps=1", "dataset.verify=false", "arch.blocks=1", "batch_size=4", "width=0.1",
        "probe=[]",
    ],
}  # fmt: skip


def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        calls = {name: partial(command, arguments, Path(folder)) for name, arguments in COMMANDS.items()}
        if not (Path(os.environ.get("RUNNER_DATA_ROOT", "data")) / "tiny-imagenet-200").is_dir():
            del calls["Tiny ImageNet, to the first step"]
        seconds = medians(calls, options.rounds, torch.device("cpu"))
    frame = pd.DataFrame([{"command": name, "seconds": taken} for name, taken in seconds.items()])
    publish(frame, "start-up", options.out / "startup.csv", {"command": "s", "seconds": ".2f"})


def command(arguments: list[str], folder: Path) -> None:
    """In a folder of its own, as a new run, but with the cache of unpacked images that the first one leaves."""
    place = tempfile.mkdtemp(dir=folder)
    run_dir = [] if arguments[0].startswith("--") else [f"hydra.run.dir={place}"]
    subprocess.run([sys.executable, "-m", "runner", *arguments, *run_dir], check=True, capture_output=True)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
