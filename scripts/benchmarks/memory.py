"""What it saves, on the CPU, that memory which a step frees stays with the process: pairs of processes that train
alike, one of them told by its environment to leave malloc to the C library. Medians over the pairs of the seconds of a
training step and of a split, and of their ratio, with its least and greatest.
"""

import argparse
import json
import os
import subprocess
import sys

import pandas as pd

from benchmarks.common import publish
from benchmarks.loops import SETTINGS, experiment, loop

ENVIRONMENTS: dict[str, dict[str, str]] = {"kept": {}, "returned": {"GLIBC_TUNABLES": ""}}


def run(options: argparse.Namespace) -> None:
    if options.one:
        print(json.dumps(seconds(options)))
        return
    pairs = [{kept: measured(kept, options) for kept in ENVIRONMENTS} for _ in range(options.rounds)]
    frame = pd.DataFrame(
        [row(work, [{kept: one[kept][work] for kept in one} for one in pairs]) for work in pairs[0]["kept"]]
    )
    formats = {"work": "s", "kept": ".3f", "returned": ".3f", "ratio": ".3f", "least": ".3f", "most": ".3f"}
    publish(frame, "seconds, freed memory kept or returned", options.out / "memory.csv", formats)


def row(work: str, pairs: list[dict[str, float]]) -> dict[str, object]:
    taken = pd.DataFrame(pairs)
    ratio = taken["kept"] / taken["returned"]
    return {"work": work, **taken.median(), "ratio": ratio.median(), "least": ratio.min(), "most": ratio.max()}


def measured(kept: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, sys.argv[0], "memory", "--one", "--threads", str(options.threads)]
    command += ["--setting", options.setting, "--steps", str(options.steps), "--override", *options.override]
    done = subprocess.run(command, env=os.environ | ENVIRONMENTS[kept], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def seconds(options: argparse.Namespace) -> dict[str, float]:
    """Of a step and of a split, after two steps that compile."""
    given = ["device=cpu", "probe=[split]", "probe.split.every=1", *options.override]
    with loop(experiment(options.setting, *given), 2) as turn:
        turn()
        spent = turn(options.steps).spent()
    return {name: taken / count for name, (taken, count) in spent.items()}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--setting", choices=SETTINGS, default="resnet8")
    parser.add_argument("--override", nargs="*", default=["width=4"], help="of the config")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of processes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
