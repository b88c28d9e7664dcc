"""How the time and memory of a training step and of the probes grow with the width and with the batch size: medians,
the fitted exponents beside the expected ones (2 in width and 1 in the batch for the products; less where narrow
networks leave the machine idle), a CSV and a plot. And on paper, from the time measured here, a step on several
devices.
"""

import argparse
import json
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import torch

from benchmarks.common import medians, peak_memory, publish
from benchmarks.split import Problem, methods
from runner.arch.resnet import CifarResNet
from runner.scaling import step_seconds

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")
METHODS = ("training step", "fd", "hvp", "split")


def run(options: argparse.Namespace) -> None:
    if options.one:
        print(peak(*json.loads(options.one), options))
        return
    sizes = [(width, options.batch) for width in options.widths]
    sizes += [(options.width, batch) for batch in options.batches if (options.width, batch) not in sizes]
    frame = pd.DataFrame([row for width, batch in sizes for row in measure(width, batch, options)])
    fits = exponents(frame, options)
    publish(fits, f"exponents, {6 * options.blocks + 2} layers", options.out / "growth-exponents.csv",
            {"method": "s", "of": "s", "over": "s", "exponent": ".2f", "expected": ".0f"})  # fmt: skip
    publish(frame, "seconds and MiB", options.out / "growth.csv",
            {"width": "g", "batch": "d", "method": "s", "seconds": ".3f", "MiB": ".0f"})  # fmt: skip
    plot(frame, options)
    publish(devices(frame, options), f"a step on several devices, on paper, {options.bandwidth:g} GB/s",
            options.out / "growth-devices.csv",
            {"width": "g", "devices": "d", "seconds": ".4f", "speedup": ".1f"})  # fmt: skip


def problem(width: float, batch: int, options: argparse.Namespace) -> Problem:
    torch.manual_seed(0)
    model = CifarResNet((3, 32, 32), 100, width=width, blocks=options.blocks)
    inputs, targets = torch.randn(batch, 3, 32, 32), torch.randint(0, 100, (batch,))
    return Problem(*(part.to(options.device) for part in (model, torch.nn.CrossEntropyLoss(), inputs, targets)))


def measure(width: float, batch: int, options: argparse.Namespace) -> list[dict[str, object]]:
    made = problem(width, batch, options)
    parameters = sum(p.numel() for p in made.model.parameters())
    calls = methods(made)
    seconds = medians({name: calls[name] for name in METHODS}, options.rounds, options.device)
    memory = {name: megabytes(width, batch, name, options) for name in METHODS}
    return [
        {"width": width, "batch": batch, "method": name, "seconds": seconds[name], "MiB": memory[name],
         "parameters": parameters}
        for name in METHODS
    ]  # fmt: skip


def megabytes(width: float, batch: int, method: str, options: argparse.Namespace) -> float:
    """The peak beyond what is held before the call, in a process of its own."""
    command = [sys.executable, sys.argv[0], "growth", "--device", str(options.device), "--blocks", str(options.blocks)]
    command += ["--threads", str(options.threads), "--one", json.dumps([width, batch, method])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def exponents(frame: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Least-squares slopes in the log-log plane over the upper half of the sizes, where costs have settled."""
    rows = []
    for over, fixed, value, expected in (
        ("width", "batch", options.batch, {"seconds": 2, "MiB": 1}),
        ("batch", "width", options.width, {"seconds": 1, "MiB": 1}),
    ):
        for (method, group), of in ((pair, of) for pair in frame.groupby("method") for of in ("seconds", "MiB")):
            points = group[group[fixed] == value].sort_values(over)[-3:]
            if len(points) > 1:
                slope = np.polyfit(np.log(points[over]), np.log(points[of]), 1)[0]
                rows.append({"method": method, "of": of, "over": over, "exponent": slope, "expected": expected[of]})
    return pd.DataFrame(rows)


def devices(frame: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    steps = frame[(frame["method"] == "training step") & (frame["batch"] == options.batch)]
    rows = []
    for one in steps.itertuples():
        for count in (1, 2, 4, 8, 16, 32, 64):
            taken = step_seconds(one.seconds, one.parameters, count, options.bandwidth * 1e9)
            rows.append({"width": one.width, "devices": count, "seconds": taken, "speedup": one.seconds / taken})
    return pd.DataFrame(rows)


def plot(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    panels = [(of, over) for over in ("width", "batch") for of in ("seconds", "MiB")]
    for axis, (of, over) in zip(axes, panels, strict=True):
        fixed, value = ("batch", options.batch) if over == "width" else ("width", options.width)
        for (method, rows), colour in zip(frame[frame[fixed] == value].groupby("method"), COLOURS, strict=True):
            rows = rows.sort_values(over)
            axis.loglog(rows[over], rows[of], "o-", label=method, ms=4, color=colour)
        sizes = sorted(frame[frame[fixed] == value][over].unique())
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel({"width": f"width, batches of {options.batch}", "batch": f"batch size, width {value:g}"}[over])
        axis.set_title({"seconds": "seconds", "MiB": "memory, MiB"}[of])
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(options.out / "growth.png", dpi=150)


def peak(width: float, batch: int, method: str, options: argparse.Namespace) -> float:
    made, few = problem(width, batch, options), problem(width, 4, options)
    return peak_memory(methods(made)[method], methods(few)[method], options.device)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--widths", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batches", type=int, nargs="+", default=[25, 50, 100, 200, 400])
    parser.add_argument("--width", type=float, default=1, help="at which batches are varied")
    parser.add_argument("--batch", type=int, default=100, help="at which widths are varied")
    parser.add_argument("--blocks", type=int, default=8, help="in each stage of the CIFAR ResNet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bandwidth", type=float, default=50.0, help="between devices, GB/s, assumed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
