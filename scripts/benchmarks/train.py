"""The runner's loop without probes against two plain, well-written PyTorch loops with the same network, optimizer and
batches: "bare" has all inputs on the device, normalised and not augmented; "DataLoader" loads, augments and
normalises with torch's DataLoader, two workers, and torchvision's transforms.

The three take turns, in one process. The share of the peak is that of the machine's largest matrix product in fp32,
measured there too; the operations of a forward and backward pass are counted by torch.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import medians, publish, timed
from benchmarks.input import loader
from benchmarks.loops import RESNETS, SETTINGS, experiment, loop
from runner.experiment import Experiment

PEAK_SIZE = 3072  # of the matrix product


def run(options: argparse.Namespace) -> None:
    rows = []
    peak = peak_rate(options.device)
    for setting in options.settings:
        made = experiment(setting, "probe=[]", f"device={options.device}", *options.override)
        with ExitStack() as stack:
            turns = {"runner": stack.enter_context(loop(made, options.steps)), **plain(made, setting, options.steps)}
            seconds = medians(turns, options.rounds, options.device)
        samples, work = len(made.batches(0)) * options.steps, operations(made) * options.steps
        for name, taken in seconds.items():
            shares = {"against_bare": taken / seconds["bare"], "share_of_peak": work / taken / peak}
            rows.append({"setting": setting, "loop": name, "samples_per_second": samples / taken, **shares})
    formats = {"setting": "s", "loop": "s", "samples_per_second": ",.0f", "against_bare": ".3f", "share_of_peak": ".1%"}
    publish(pd.DataFrame(rows), f"{peak / 1e9:.0f} GFLOP/s at most", options.out / "train.csv", formats)


def plain(made: Experiment, setting: str, steps: int) -> dict[str, Callable[[], None]]:
    """Loops of a dozen lines on copies of the network."""
    held = [made.batches(step) for step in range(min(steps, made.batches.steps_per_epoch))]
    pairs = [(batch.inputs, made.targets(batch)) for batch in held]
    loops = {"bare": lambda: train(bare, made.loss_fn, rate, (pairs[step % len(pairs)] for step in range(steps)))}
    bare, loaded = copy.deepcopy(made.model), copy.deepcopy(made.model)
    rate = made.rates[0]
    if setting in RESNETS:
        batches = endless(loader(len(held[0]), workers=2), made.device)
        loops["DataLoader"] = lambda: train(loaded, made.loss_fn, rate, (next(batches) for _ in range(steps)))
    return loops


def train(model: nn.Module, loss_fn: nn.Module, rate: float, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for inputs, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        loss_fn(model(inputs), targets).backward()
        optimizer.step()


def endless(batches: torch.utils.data.DataLoader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for inputs, labels in batches:
            yield inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def operations(made: Experiment) -> int:
    """Floating-point operations of a forward and backward pass on a batch."""
    batch = made.batches(0)
    with FlopCounterMode(display=False) as counter:
        made.loss_fn(made.model(batch.inputs), made.targets(batch)).backward()
    return int(counter.get_total_flops())


def peak_rate(device: torch.device) -> float:
    """Operations a second of a large matrix product in fp32: the best of ten."""
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE, device=device)
    return 2 * PEAK_SIZE**3 / min(timed(lambda: a @ b, device) for _ in range(10))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["default", "mlp_400", "resnet50_k1"])
    parser.add_argument("--steps", type=int, default=20, help="of each loop's turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--override", nargs="+", default=[], help="further overrides of the runner")
