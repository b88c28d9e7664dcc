"""Spectra of the Hessian before and after training on images of ten classes, over hidden widths: what Figures 1 and 2
of Sagun, Bottou, LeCun have in common."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner import reload
from runner.errors import BadInput
from runner.records import write_file
from runner.report import spectra
from runner.report.drawing import eigenvalue_histogram, heat_map
from runner.report.statistics import Interval, above, agreed, all_of, below, mean, trend
from runner.report.study import Claim, Finding, Plot, Runs
from runner.report.style import ink, ordered, panels
from runner.settings import settings

CLASSES = 10
BULK = 0.9  # share of all eigenvalues
STEPS = {"first": "before training", "last": "after training"}
MOST = 400  # pixels of a heat map in a row: larger matrices are shown by the largest entry of each block


def trained(runs: Runs, step: str = "last") -> pd.DataFrame:
    """`spectra.summaries` of the runs whose network learned something."""
    found = spectra.summaries(runs, step=step, classes=CLASSES)
    return found[found["outcome"] != "plateau"]


def bulk(runs: Runs) -> Finding:
    """Before and after training."""
    found = {name: _means(trained(runs, step), "near_zero") for step, name in STEPS.items()}
    said = "; ".join(f"{name} {spectra.listed(shares)}" for name, shares in found.items())
    outcome = all_of(above(one, BULK) for shares in found.values() for one in shares.values())
    return Finding(outcome, f"Share of eigenvalues with |λ| ≤ λ₁/100: {said}.")


def edges(runs: Runs) -> Finding:
    """Of the number of large eigenvalues."""
    found, before = trained(runs), trained(runs, "first")
    slope = trend(found, "large", "n")
    said = f"Number of eigenvalues with |λ| > λ₁/10: {spectra.listed(_means(found, 'large'))}; log-log slope {slope}"
    return Finding(below(slope, 0.5), f"{said}, before training {trend(before, 'large', 'n')}.")


def overparametrised(runs: Runs) -> Finding:
    found = trained(runs)
    slope = trend(found, "near_zero", "n", log=False)
    said = f"Share of eigenvalues with |λ| ≤ λ₁/100: {spectra.listed(_means(found, 'near_zero'))}; change for each "
    wider = found[found["n"] > found["n"].min()]
    without = trend(wider, "near_zero", "n", log=False)
    outcome = agreed([above(slope), above(without)])
    return Finding(outcome, f"{said}doubling of n: {slope}, without the smallest network {without}.")


def _means(found: pd.DataFrame, column: str) -> dict[str, Interval]:
    return {spectra.setting("width", width): mean(rows[column]) for width, rows in found.groupby("width")}


CLAIMS = (
    Claim(
        "bulk at zero",
        "The spectrum is a bulk concentrated around zero, before and after training, and edges away from it.",
        f"The share of eigenvalues of at most 1 % of the largest, a mean over seeds, lies above {BULK:g} at every "
        "width, before and after training (t-intervals; networks that stayed at the loss of guessing do not count).",
        bulk,
    ),
    Claim(
        "edges do not grow",
        "The edges belong to the data: a larger network does not have more eigenvalues far from zero.",
        "After training, the log-log slope of the number of eigenvalues of more than a tenth of the largest over the "
        "number of parameters n, fitted for each seed, has a mean below 1/2; does not hold if it lies above.",
        edges,
    ),
    Claim(
        "bulk grows",
        "The bulk tells how overparametrised the network is: its share grows with the width.",
        "After training, the share of eigenvalues of at most 1 % of the largest rises with n (slope over log2 n for "
        "each seed, t-interval of their mean), with the smallest network and without it; open where these differ.",
        overparametrised,
    ),
)


def histograms(runs: Runs) -> Figure:
    """Of the first seed's network of each width that learned, before and after training."""
    tables = {step: _shown(runs, step) for step in STEPS}
    widths = sorted(tables["last"]["width"].unique())
    figure, axes = panels(2 * len(widths), columns=2, width=4.8, height=2.8)
    for place, axis in enumerate(axes):
        step, width = list(STEPS)[place % 2], widths[place // 2]
        rows = tables[step][tables[step]["width"] == width]
        colour = ordered(len(widths))[place // 2]
        eigenvalue_histogram(axis, rows["value"], spectra.near_zero_of(rows), color=colour)
        axis.set_title(f"{width:g} hidden units, $n = {len(rows):,}$, {STEPS[step]}", pad=20)
    return figure


def ranks(runs: Runs) -> Figure:
    """Ordered eigenvalues over their rank, as a share of the size."""
    figure, axes = panels(2, columns=2, width=4.6, height=3.4)
    for axis, (step, when) in zip(axes, STEPS.items(), strict=True):
        rows = _shown(runs, step)
        widths = sorted(rows["width"].unique())
        for width, colour in zip(widths, ordered(len(widths)), strict=True):
            values = np.sort(rows.loc[rows["width"] == width, "value"])[::-1]
            axis.plot((np.arange(len(values)) + 0.5) / len(values), values, ".-", ms=2.5, lw=0.8, color=colour,
                      label=f"{width:g} hidden units, n = {len(values):,}")  # fmt: skip
        linear = 10 ** np.floor(np.log10(spectra.near_zero_of(rows)))
        axis.set_yscale("symlog", linthresh=linear, linscale=0.7)
        axis.axhline(0, color=ink(), lw=0.6)
        axis.set_xlabel("rank $i / n$")
        axis.set_title(f"eigenvalues $\\lambda_i$, {when}")
    axes[0].legend()
    return figure


def _shown(runs: Runs, step: str) -> pd.DataFrame:
    """All eigenvalues of one run for each width: of those that learned, the first seed's."""
    rows = spectra.eigenvalues(runs, step=step, classes=CLASSES)
    rows = rows[rows["outcome"] != "plateau"]
    return rows[rows["seed"] == rows.groupby("width")["seed"].transform("min")]


def heat_maps(runs: Runs) -> Figure:
    """The smallest network's Hessian: all of it, and the part of the layers above the first."""
    shown = {step: _matrix(runs, step) for step in STEPS}
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 7.6))
    for row, (step, when) in zip(axes, STEPS.items(), strict=True):
        matrix, upper = shown[step]
        heat_map(row[0], blocks(matrix))
        row[0].set_title(f"{when}: all {len(matrix):,} parameters")
        heat_map(row[1], matrix[-upper:, -upper:])
        row[1].set_title(f"{when}: the {upper} above the first layer")
    for axis in axes.flatten():
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def _matrix(runs: Runs, step: str) -> tuple[np.ndarray, int]:
    """H of the smallest network that learned, and how many of its parameters come after the first layer's."""
    rows = spectra.ends(runs, CLASSES).sort_values(["width", "seed"])
    rows = rows[rows["outcome"] != "plateau"]
    if rows.empty:
        raise BadInput(f"{runs.folder} should hold a network that learned, found none")
    width = int(rows.iloc[0]["width"])
    return kept_hessian(runs.folder / rows.iloc[0]["run"], step), width * (width + 1) + CLASSES * (width + 1)


def kept_hessian(folder: Path, step: str) -> np.ndarray:
    """H of a run's network at its `first` or `last` step. A file beside the run keeps it, younger than the run's last
    checkpoint; without it H is computed from the config (first) or from that checkpoint (last)."""
    path = folder.parent / f"{folder.name}-H-{step}.npy"
    checkpoint = folder / "checkpoint.pt"
    if not path.is_file() or (checkpoint.is_file() and path.stat().st_mtime < checkpoint.stat().st_mtime):
        write_file(path.parent, path.stem, hessian_of(folder, step))
    matrix: np.ndarray = np.load(path)
    return matrix


def hessian_of(folder: Path, step: str) -> np.ndarray:
    overrides = ["probe=[hessian]", "probe.hessian.matrices=[H]", "probe.hessian.save=true"]
    cfg = reload.probing(reload.config(folder), overrides)
    with settings(cfg):
        run = reload.experiment(cfg)
        start = reload.Saved(0, 0, lambda: {name: entry.clone() for name, entry in run.model.state_dict().items()})
        saved = start if step == "first" else reload.networks(folder, cfg)[0]
        _, at = reload.measurement(run, saved)
        ((_, matrix),) = at.files("hessian", run.probes["hessian"])
    return np.asarray(matrix)


def blocks(matrix: np.ndarray) -> np.ndarray:
    """A matrix of at most MOST rows: of each block its entry of the largest size."""
    side = -(-len(matrix) // MOST)
    padded = np.pad(matrix, (0, -len(matrix) % side))
    rows = len(padded) // side
    cells = padded.reshape(rows, side, rows, side).swapaxes(1, 2).reshape(rows, rows, side * side)
    place = np.abs(cells).argmax(-1)[..., None]
    return np.take_along_axis(cells, place, -1)[..., 0]


PLOTS = (
    Plot("histograms", "All eigenvalues of one network of each width; symmetric-log axes.", histograms),
    Plot("ranks", "The same in descending order.", ranks),
    Plot(
        "heat_maps",
        "Entries of H of the smallest network, red positive and blue negative; symmetric-log colours. Of all of H, "
        "each pixel is the largest entry of a block.",
        heat_maps,
    ),
)


def remark(runs: Runs) -> str:
    """How far the networks were trained, and how many did not learn."""
    found = spectra.summaries(runs, classes=CLASSES)
    losses = found[found["outcome"] != "plateau"].groupby("width")["train_loss"].mean()
    said = ", ".join(f"{loss:.2g} at {width:g} units" for width, loss in losses.items())
    said = (
        f"Mean training loss at the end: {said}. Networks of different widths are compared after the same number of "
        "steps, not at the same loss: what is said of them after training is also of how far they have come."
    )
    stayed = found[found["outcome"] == "plateau"].groupby("width").size()
    if not len(stayed):
        return said
    left = ", ".join(f"{count} of width {width:g}" for width, count in stayed.items())
    return f"{said} Networks that stayed at the loss of guessing, and do not count: {left}."
