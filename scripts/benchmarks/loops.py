"""The runner's own loop, a turn at a time, without the files of a whole run."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner.allocator import kept_memory
from runner.build import build
from runner.config import CONF_DIR
from runner.experiment import Experiment
from runner.progress import Progress
from runner.stopwatch import Costs
from runner.train import Hooks, train

# The default's fully connected networks, and CIFAR-100's networks and recipe on noise of its form.
MLPS = {"default": [], "mlp_400": ["width=8"]}
RESNETS = {
    **{f"resnet50_k{k}": [f"width={k}"] for k in (1, 2, 4, 8)},
    "resnet8": ["arch.blocks=1"],
    "resnet_bottleneck50": ["arch=resnet_bottleneck50"],
}
SETTINGS = (*MLPS, *RESNETS)


def experiment(setting: str, *overrides: str) -> Experiment:
    given = MLPS[setting] if setting in MLPS else ["dataset=cifar100", *RESNETS[setting]]
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        cfg = compose("config", overrides=[*given, *overrides])
    if setting in RESNETS:
        cfg.dataset = OmegaConf.create({"_target_": "benchmarks.photographs.photographs"})
    return build(cfg)


@contextmanager
def loop(run: Experiment, steps: int) -> Iterator[Callable[..., Costs]]:
    """A call that trains on for so many steps, or for as many as it is given, rows written as ever, and tells what was
    spent on what."""
    with tempfile.TemporaryDirectory() as folder:
        progress = Progress(run, Path(folder))
        progress.begin(None)

        def turn(steps: int = steps) -> Costs:
            costs = Costs(list(run.probes), run.device)
            run.steps = progress.step + steps - 1  # the last of the forward and backward passes is without an update
            hooks = Hooks(lambda step: None, lambda: "", lambda step, row: None, float("inf"))
            with kept_memory():  # as in a run
                train(run, progress, hooks, costs)
            progress.flush()
            progress.step = run.steps
            return costs

        yield turn


def interleaved(turns: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each, in turns, after one round to warm up."""
    found: list[list[float]] = [[] for _ in turns]
    for number in range(rounds + 1):
        for turn, seconds in zip(turns, found, strict=True):
            began = time.perf_counter()
            turn()
            if number:
                seconds.append(time.perf_counter() - began)
    return found
