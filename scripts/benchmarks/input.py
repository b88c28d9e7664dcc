"""Batches of the runner, whose data lie on the device and are cropped and flipped there, against torch's DataLoader
with torchvision's transforms doing the same in workers: images a second, nothing trained, taking turns.
"""

import argparse
from collections.abc import Callable

import pandas as pd
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.common import medians, publish
from benchmarks.photographs import MEAN, PADDING, SIDE, STD, photographs
from runner.dataset.batches import Batches


def run(options: argparse.Namespace) -> None:
    batches = Batches(photographs(), batch_size=options.batch, seed=0, device=options.device, dtype=torch.float32)
    epoch = [0]

    def ours() -> None:
        epoch[0] += 1
        for step in range(batches.steps_per_epoch):
            batches((epoch[0] - 1) * batches.steps_per_epoch + step)

    calls: dict[str, Callable[[], None]] = {"runner": ours}
    for workers in options.workers:
        calls[f"DataLoader, {workers} workers"] = consumer(loader(options.batch, workers), options.device)
    seconds = medians(calls, options.rounds, options.device)
    rows = [
        {"input": name, "images_per_second": batches.size / taken, "against_runner": taken / seconds["runner"]}
        for name, taken in seconds.items()
    ]
    formats = {"input": "s", "images_per_second": ",.0f", "against_runner": ".1f"}
    publish(pd.DataFrame(rows), f"batches of {options.batch}", options.out / "input.csv", formats)


class Photographs(torch.utils.data.Dataset):
    """A data set as torchvision's are: one image at a time, transformed when it is asked for."""

    def __init__(self) -> None:
        self.data = photographs().train
        steps = [v2.RandomCrop(SIDE, PADDING), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([*steps, v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.data.inputs[index]), self.data.labels[index]


def loader(batch: int, workers: int) -> DataLoader:
    return DataLoader(
        Photographs(), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def consumer(batches: DataLoader, device: torch.device) -> Callable[[], None]:
    def call() -> None:
        for inputs, labels in batches:
            inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return call


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
