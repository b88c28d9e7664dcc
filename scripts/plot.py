"""Curvature along training: one panel a column, one colour for each setting, the mean over seeds with their range.
Networks that diverged are left out, unless all did.

python scripts/plot.py outputs/fig2
python scripts/plot.py outputs/fig2 --columns fd_gHg split_gHg --over-gg --save fig2.png
"""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from runner.analysis import load
from runner.errors import BadInput
from runner.report.drawing import linear_part, mean_and_range
from runner.script import sentences
from runner.writing import explained

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SETTINGS = 20  # more colours than that nobody tells apart
CURVATURES = ("gHg", "gGg", "gHrg")  # drawn unless told otherwise
FORMULAS = {
    "gHg": "$g'Hg$",
    "gGg": "$g'Gg$",
    "gHrg": "$g'H_r g$",
    "grad_norm": "$|g|$",
    "lr": r"rate $\mu$",
    "train_loss": "training loss",
    "train_error": "training error",
    "test_loss": "test loss",
    "test_error": "test error",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run's folder, or one that holds runs")
    parser.add_argument("--columns", nargs="+", help="of metrics.csv; default: train_loss and all curvatures along g")
    parser.add_argument("--x", default="epoch", choices=("epoch", "step"))
    parser.add_argument("--over-gg", action="store_true", help="divide curvatures by g'g")
    parser.add_argument("--save", type=Path, help="default: curvature.png in the folder, or curvature-over-gg.png")
    return parser.parse_args()


def quantity_of(column: str) -> str:
    """`fd_gHg_mu1e-3` -> gHg"""
    return column.split("_mu")[0].rpartition("_")[2]


def along_g(column: str) -> bool:
    """Whether it is quadratic in g, so that it may be divided by g'g."""
    return quantity_of(column) in (*CURVATURES, "decorrelated")


def label(column: str, over_gg: bool) -> str:
    """`split_gHrg` -> "g'H_r g (split)", divided by g'g if so."""
    probe, _, quantity = column.partition("_")
    if column in FORMULAS or not quantity:
        return FORMULAS.get(column, column)
    quantity, _, mu = quantity.partition("_mu")
    divided = " / $g'g$" if over_gg and along_g(column) else ""
    step = rf", $\mu$ = {mu}" if mu else ""
    return f"{FORMULAS.get(quantity, quantity)}{divided} ({probe}{step})"


def spread(frame: pd.DataFrame, x: str, column: str) -> pd.DataFrame:
    """Mean, least and greatest over runs at each x."""
    return frame.dropna(subset=[column]).groupby(x)[column].agg(["mean", "min", "max"])


def knobs(frame: pd.DataFrame) -> list[str]:
    """What varies over the runs besides the seed, without what follows from the ones before it."""
    found: list[str] = []
    for column in frame.columns[2 : frame.columns.get_loc("step")]:
        grouped = frame.groupby(found, dropna=False) if found else frame.groupby(lambda _: 0)
        if column != "seed" and grouped[column].nunique(dropna=False).max() > 1:  # null is a setting, too
            found.append(column)
    return found


def said(value: Any) -> str:
    if pd.isna(value):
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def draw(axis: Any, frame: pd.DataFrame, x: str, column: str, name: str) -> None:
    by = knobs(frame)
    groups = list(frame.groupby(by, dropna=False)) if by else [((), frame)]
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(groups)))
    for (values, rows), colour in zip(groups, colours, strict=True):
        table = spread(rows, x, column)
        named = ", ".join(f"{knob} {said(value)}" for knob, value in zip(by, values, strict=True))
        mean_and_range(axis, table, color=colour, lw=1, label=named or None)
    axis.set_title(name)
    axis.set_xlabel(x)
    if along_g(column):
        axis.axhline(0, color="black", lw=0.5)


def converging(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the networks that diverged, whose last rows would set the axes; all, if all did."""
    kept = frame[frame["status"] != "diverged"]
    if len(kept) == len(frame):
        return frame
    gone = len(frame[frame["status"] == "diverged"].groupby(["run", "replica"]))
    left_out = "left out" if len(kept) else "shown, since all did"
    print(f"plot: {gone} network{'s' * (gone > 1)} that diverged {left_out}", file=sys.stderr)
    return frame if kept.empty else kept


def tell_unfinished(frame: pd.DataFrame) -> None:
    """Means end where a run does, and go on with those of the others."""
    networks = frame.drop_duplicates(["run", "replica"])
    unfinished = networks[~networks["status"].isin(["finished", "diverged"])]
    if len(unfinished):
        how = ", ".join(f"{count} {status}" for status, count in unfinished["status"].value_counts().items())
        print(f"plot: of {len(networks)} networks, {how}: drawn as far as they have come", file=sys.stderr)


def over(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """With these columns divided by g'g."""
    return frame.assign(**{column: frame[column] / frame["grad_norm"] ** 2 for column in columns})


def symlog(axis: Any, values: pd.DataFrame) -> None:
    """Logarithmic over eight decades at most: curvatures fall by many of them as training converges, and their sign
    should be seen to the end."""
    if (threshold := linear_part(values, least=1e-8)) is not None:
        axis.set_yscale("symlog", linthresh=threshold)
        axis.yaxis.get_major_locator().set_params(numticks=9)


def figure(frame: pd.DataFrame, columns: Sequence[str], x: str, over_gg: bool) -> Any:
    """Panels three to a row. Curvatures share an axis that is linear around zero and logarithmic beyond."""
    rows = -(-len(columns) // 3)
    settings = len(frame.groupby(knobs(frame), dropna=False)) if knobs(frame) else 0
    height = 3 * rows + 0.25 * -(-settings // 3)  # the legend below has three columns
    fig, grid = plt.subplots(rows, 3, figsize=(11, height), squeeze=False, layout="constrained")
    axes = grid.flatten()
    for axis in axes[len(columns) :]:
        axis.remove()
    curved = [axis for axis, column in zip(axes, columns, strict=False) if along_g(column)]
    for axis in curved[1:]:
        axis.sharey(curved[0])
    frame = over(frame, [column for column in columns if over_gg and along_g(column)])
    for axis, column in zip(axes, columns, strict=False):
        draw(axis, frame, x, column, label(column, over_gg))
    if curved:
        symlog(curved[0], frame[[column for column in columns if along_g(column)]])
    if settings:
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return fig


def plotted(options: argparse.Namespace) -> Path:
    """The picture's file. Raises BadInput."""
    frame = load(options.folder)
    if (several := len(frame.groupby(knobs(frame), dropna=False)) if knobs(frame) else 1) > SETTINGS:
        raise BadInput(
            f"{options.folder} should hold at most {SETTINGS} settings, found {several} that differ in "
            f"{', '.join(knobs(frame))}: name the folder of one sweep"
        )
    if frame.empty:
        raise BadInput(f"{options.folder} should hold runs that have measured something, found no rows")
    default = ["train_loss", *(one for one in frame.columns if quantity_of(one) in CURVATURES)]
    columns = options.columns or default
    numbers = [str(one) for one in frame.columns if pd.api.types.is_numeric_dtype(frame[one])]
    if odd := [one for one in columns if one not in numbers]:
        alike = difflib.get_close_matches(odd[0], numbers, 1)
        hint = f" (did you mean {alike[0]}?)" if alike else f"; there are {', '.join(numbers)}"
        raise BadInput(f"--columns should name columns of numbers in metrics.csv, found {', '.join(odd)}{hint}")
    target = Path(options.save or options.folder / f"curvature{'-over-gg' if options.over_gg else ''}.png")
    tell_unfinished(frame)
    picture = figure(converging(frame), columns, options.x, options.over_gg)
    if target.suffix.lstrip(".") not in (kinds := picture.canvas.get_supported_filetypes()):
        raise BadInput(f"--save should end in one of .{', .'.join(kinds)}, found {target}")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(target, dpi=150)
    return target


def main() -> None:
    with sentences("plot"):
        print(plotted(arguments()))


if __name__ == "__main__":
    main()
