"""What each probe adds to training, in percent of the time of the training steps, at every cadence: its cost in
training steps as a run's meta.json has it, over n. And what rows in metrics.csv add by themselves: the same loop
with a row at every step against one with a row at its ends, taking turns. Empty: the probe refuses such a network.
"""

import argparse
import math
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from benchmarks.common import publish
from benchmarks.loops import SETTINGS, experiment, interleaved, loop
from runner.config import CONF_DIR
from runner.errors import BadInput
from runner.stopwatch import in_training_steps

DEFAULT = sorted(path.stem for path in (Path(CONF_DIR) / "probe").glob("*.yaml"))
LONG = 10.0  # seconds: what takes so long is measured once
CADENCES = (1, 10, 100)


def run(options: argparse.Namespace) -> None:
    rows = []
    for setting in options.settings:
        rows.append({"setting": setting, "what": "rows", **rows_alone(setting, options)})
        for probe in options.probes:
            cost = in_steps(setting, probe, options)
            shares = {f"every_{n}": 100 * cost / n for n in CADENCES}
            rows.append({"setting": setting, "what": probe, "training_steps": cost, **shares})
    formats = {"setting": "s", "what": "s", "training_steps": ".2f", **{f"every_{n}": ".1f" for n in CADENCES}}
    publish(pd.DataFrame(rows), "percent of the training time", options.out / "probes.csv", formats)


def in_steps(setting: str, probe: str, options: argparse.Namespace) -> float:
    """The cost of a measurement in training steps: the median over turns, each with a measurement at every step."""
    try:
        made = experiment(setting, f"probe=[{probe}]", f"probe.{probe}.every=1", f"device={options.device}")
    except BadInput as error:
        print(f"{setting}: {error}", file=sys.stderr)
        return math.nan
    with loop(made, options.steps) as turn:
        turn(2)  # compiles, if anything does
        began = time.perf_counter()
        first = in_training_steps(turn(2).spent())[probe]
        if time.perf_counter() - began > LONG:
            return first or math.nan
        costs = [in_training_steps(turn().spent())[probe] for _ in range(options.rounds)]
    return statistics.median(cost for cost in costs if cost is not None)


def rows_alone(setting: str, options: argparse.Namespace) -> dict[str, float]:
    both = [experiment(setting, "probe=[]", f"log_every={n}", f"device={options.device}") for n in (1, 10**9)]
    with ExitStack() as stack:
        turns = [stack.enter_context(loop(made, options.steps)) for made in both]
        dense, sparse = interleaved(turns, 2 * options.rounds + 1)
    share = statistics.median(a / b - 1 for a, b in zip(dense, sparse, strict=True))
    return {f"every_{n}": 100 * share / n for n in CADENCES}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["default", "mlp_400", "resnet8"])
    parser.add_argument("--probes", nargs="+", default=DEFAULT)
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
