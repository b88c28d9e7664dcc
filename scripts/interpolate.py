"""Loss and error along the straight line between two runs at matching steps, or between a run's start and its end.

python scripts/interpolate.py outputs/fig8/<run> outputs/fig8/<other run>
python scripts/interpolate.py outputs/fig8/<run> --points 61 --range -0.5 1.5

On the line w(alpha) = (1 - alpha) w_A + alpha w_B lie the snapshots (probe=snapshot, probe.snapshot.every=…) of runs of
one network on the same data with the same loss. Writes a table (step, alpha, train_loss, train_error, test_loss,
test_error, distance = |w_B - w_A|) and a figure beside it: the eighth of Sagun, Bottou, LeCun, "Singularity of the
Hessian in Deep Learning".

The training loss is that of training mode, on the same samples at every point, in parts of RUN_A's batch size, each
with batch statistics of its own. A batch norm's running statistics mean nothing between two networks: they are gathered
anew from these parts at every point, also at alpha = 0 and 1, where test_loss can so differ from the run's own.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from runner import line, reload
from runner.errors import BadInput
from runner.identity import identity
from runner.script import sentences
from runner.settings import settings
from runner.writing import explained, whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

COLUMNS = ("step", "alpha", "train_loss", "train_error", "test_loss", "test_error", "distance")
SHARED = ("arch", "width", "dataset", "loss")  # by two runs on a line
Pair = tuple[reload.Saved, reload.Saved]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="RUN_A", help="the folder of a run: alpha = 0")
    parser.add_argument("b", type=Path, metavar="RUN_B", nargs="?", help="alpha = 1; without it: RUN_A's own end")
    parser.add_argument("--replicas", type=int, nargs=2, default=(0, 0), metavar=("A", "B"), help="of the runs (0 0)")
    parser.add_argument("--points", type=int, default=25, help="on the line, besides A and B (25)")
    parser.add_argument(
        "--range", type=float, nargs=2, default=(-0.25, 1.25), metavar=("FROM", "TO"), help="of alpha (-0.25 1.25)"
    )
    parser.add_argument("--samples", type=int, default=1000, help="of the training and of the test set, at most (1000)")
    parser.add_argument("--out", type=Path, help="the table, *.csv; default: beside RUN_A's folder, named by the runs")
    parser.add_argument("--device", help="default: RUN_A's")
    parser.add_argument("--data-root", help="where data sets lie; default: RUN_A's")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    low, high = options.range
    if options.points < 2 or options.samples < 2:
        raise BadInput(f"--points and --samples should be at least 2, found {options.points} and {options.samples}")
    if not -np.inf < low <= 0 < 1 <= high < np.inf:
        raise BadInput(f"--range should go from 0 or less to 1 or more, found {low:g} {high:g}")
    if options.out is not None and options.out.suffix != ".csv":
        raise BadInput(f"--out should end in .csv, found {options.out}")


def check_same(a: DictConfig, b: DictConfig, names: tuple[Path, Path]) -> None:
    """Only points of one landscape can be joined by a line on it."""
    one, other = identity(a), identity(b)
    if differ := [key for key in SHARED if one[key] != other[key]]:
        raise BadInput(
            f"the runs should be of one network, data set and loss, found different values of {', '.join(differ)} in "
            f"{names[0]} and {names[1]}"
        )


def between(a: Path, b: Path, replicas: Sequence[int]) -> list[Pair]:
    """The snapshots of both at the steps that both have."""
    one, other = (kept(run, replica) for run, replica in zip((a, b), replicas, strict=True))
    if not one.keys() & other.keys():
        found = [" ".join(map(str, steps)) or "none" for steps in (one, other)]
        raise BadInput(
            f"the runs should have snapshots (probe=snapshot) at the same steps, found {found[0]} in {a} and {found[1]}"
            f" in {b}"
        )
    return [(one[step], other[step]) for step in one if step in other]


def start_to_end(run: Path, replica: int) -> list[Pair]:
    found = list(kept(run, replica).values())
    if len(found) < 2:
        raise BadInput(f"{run} should have at least two snapshots (probe=snapshot), found {len(found)}")
    return [(found[0], found[-1])]


def kept(run: Path, replica: int) -> dict[int, reload.Saved]:
    """Its snapshots by step."""
    return {saved.step: saved for saved in reload.snapshots(run) if saved.replica == replica}


def walk(cfg: DictConfig, pairs: Sequence[Pair], alphas: Sequence[float], count: int) -> pd.DataFrame:
    """A row for each pair of networks and each point on the line between them."""
    rows: list[dict[str, float]] = []
    console = Console(stderr=True)
    cfg.probe = {}
    with settings(cfg):
        run = reload.experiment(cfg)
        samples = line.samples_of(run, count)
        for a, b in track(pairs, "lines", console=console, disable=not console.is_terminal):
            rows += [{"step": b.step, **row} for row in line.walk(run, a.read(), b.read(), alphas, samples)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def places(reach: tuple[float, float], points: int) -> list[float]:
    """Equally spaced, and the ends A and B."""
    return sorted({0.0, 1.0, *np.linspace(*reach, points).round(12).tolist()})


class StepAxis:
    """Where training steps stand on an axis: log(1 + step) if they were kept at such intervals, else linear."""

    def __init__(self, steps: Any) -> None:
        last = int(steps.max())
        self._log = bool(np.median(steps) < last / 4)
        marks = [0, *(10**k for k in range(len(str(last))))] if self._log else MaxNLocator(4).tick_values(0, last)
        self.marks = [int(mark) for mark in marks if mark <= last]

    def __call__(self, steps: Any) -> Any:
        return np.log10(1 + np.asarray(steps)) if self._log else np.asarray(steps)


def figure(frame: pd.DataFrame, names: tuple[str, str]) -> Any:
    """The training loss along the line, over training if there are several steps, and how far apart the ends are."""
    loss = frame.pivot(index="step", columns="alpha", values="train_loss")
    if len(loss) == 1:
        return one_line(frame, names)
    steps = StepAxis(loss.index.to_numpy())
    fig = plt.figure(figsize=(12, 4.8), layout="constrained")
    fig.suptitle(f"A: {names[0]}\nB: {names[1]}", fontsize=9)
    grid = fig.add_gridspec(2, 3, width_ratios=(1.35, 1, 0.75))
    surface(fig.add_subplot(grid[:, 0], projection="3d"), loss, steps)
    profiles(fig.add_subplot(grid[:, 1]), loss)
    apart, height = fig.add_subplot(grid[0, 2]), fig.add_subplot(grid[1, 2])
    apart.plot(steps(loss.index), frame.groupby("step")["distance"].first(), "k")
    apart.set(title="distance $|w_B - w_A|$", ylim=(0, 1.1 * frame["distance"].max() or 1))
    heights(height, loss, steps)
    for axis in (apart, height):
        axis.set_xticks(steps(steps.marks), map(str, steps.marks))
    return fig


def surface(axis: Any, loss: pd.DataFrame, steps: StepAxis) -> None:
    """As in the paper, but with the end of training in front, which the start would hide."""
    alphas, places = np.meshgrid(loss.columns, steps(loss.index))
    axis.plot_surface(alphas, places, loss.to_numpy(), cmap="viridis", rcount=100, ccount=100)
    for alpha, letter in ((0, "A"), (1, "B")):
        axis.plot(np.full(len(loss), alpha), steps(loss.index), loss[alpha], "k", lw=1.5, zorder=10)
        axis.text(alpha, steps(loss.index[-1]), loss[alpha].iloc[-1], letter, zorder=11, ha="right", va="top")
    axis.set(xlabel="position on the line", ylabel="training step", title="training loss", xticks=(0, 0.5, 1))
    axis.set_yticks(steps(steps.marks), map(str, steps.marks))
    axis.invert_yaxis()
    axis.view_init(28, -60)


def profiles(axis: Any, loss: pd.DataFrame) -> None:
    """The surface cut at some steps."""
    shown = loss.iloc[np.unique(np.linspace(0, len(loss) - 1, 7).astype(int))]
    colours = plt.get_cmap("plasma")(np.linspace(0, 0.9, len(shown)))
    for (step, values), colour in zip(shown.iterrows(), colours, strict=True):
        axis.plot(values.index, values, color=colour, label=f"step {step}")
    axis.legend(fontsize=8, edgecolor="none")
    axis.set(xlabel="position on the line", title="training loss at some steps", ylim=(0, None))
    mark_ends(axis)


def heights(axis: Any, loss: pd.DataFrame, steps: StepAxis) -> None:
    """How much higher the way from A to B is than its ends."""
    axis.plot(steps(loss.index), loss.loc[:, 0:1].max(axis=1), "k", label="highest between A and B")
    axis.plot(steps(loss.index), loss[[0, 1]].mean(axis=1), "k:", label="mean of A and B")
    axis.set(title="training loss", yscale="log", xlabel="training step")
    axis.legend(fontsize=8, frameon=False)


def one_line(frame: pd.DataFrame, names: tuple[str, str]) -> Any:
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    fig.suptitle(f"A: {names[0]}    B: {names[1]}    $|w_B - w_A|$ = {frame['distance'][0]:.3g}", fontsize=9)
    for axis, quantity in zip(axes, ("loss", "error"), strict=True):
        for kind, style, name in (("train", "k-", "training"), ("test", "k--", "test")):
            if frame[f"{kind}_{quantity}"].notna().any():
                axis.plot(frame["alpha"], frame[f"{kind}_{quantity}"], style, label=name)
        axis.set(xlabel="position on the line", title=quantity)
        mark_ends(axis)
    axes[0].legend(frameon=False)
    return fig


def mark_ends(axis: Any) -> None:
    for alpha, letter in ((0, "A"), (1, "B")):
        axis.axvline(alpha, color="black", lw=0.5)
        axis.annotate(letter, (alpha, 1), (3, -10), xycoords=("data", "axes fraction"), textcoords="offset points")


def named(run: Path, replica: int) -> str:
    return run.resolve().name + (f"-replica{replica}" if replica else "")


def main() -> None:
    options = arguments()
    sys.path.insert(0, "")  # networks and probes of the user's own, where `python -m runner` finds them
    with sentences("interpolate"):
        check(options)
        cfg = reload.config(options.a, device=options.device, data_root=options.data_root)
        a = named(options.a, options.replicas[0])
        if options.b is None:
            pairs, stem, names = start_to_end(options.a, options.replicas[0]), f"{a}-start-to-end", ("start", "end")
        else:
            check_same(cfg, reload.config(options.b), (options.a, options.b))
            pairs, names = between(options.a, options.b, options.replicas), (a, named(options.b, options.replicas[1]))
            stem = "-to-".join(names)
        frame = walk(cfg, pairs, places(options.range, options.points), options.samples)
        table = options.out or options.a.resolve().parent / f"{stem}.csv"
        with explained(table):
            table.parent.mkdir(parents=True, exist_ok=True)
            with whole(table) as sink:
                sink.write(frame.to_csv(index=False).encode())
            figure(frame, names).savefig(table.with_suffix(".png"), dpi=150)
    print(table, table.with_suffix(".png"), sep="\n")


if __name__ == "__main__":
    main()
