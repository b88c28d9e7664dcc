"""Figure 4 of Sagun, Bottou, LeCun: the Hessian at the end of training on two blobs as heat maps."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.errors import BadInput
from runner.kept import parsed
from runner.report import spectra
from runner.report.drawing import heat_map
from runner.report.statistics import above, all_of, median, trend
from runner.report.study import Claim, Finding, Plot, Runs, Study

SMALL = 0.01  # share of the largest |entry| up to which an entry counts as near zero


def sparse(runs: Runs) -> Finding:
    found = entries(runs)
    shares = {spectra.setting("width", width): median(rows["small"]) for width, rows in found.groupby("width")}
    slope = trend(found, "small", "n", over="replica", log=False)
    said = f"Median share of entries with |H_ij| ≤ max |H_ij| / 100: {spectra.listed(shares)}"
    outcome = all_of([above(list(shares.values())[-1], 0.5), above(slope)])
    return Finding(outcome, f"{said}; change for each doubling of n: {slope}.")


def rank_two(runs: Runs) -> Finding:
    shares = spectra.judged_by(spectra.summaries(runs), "width", "top_two")
    outcome = all_of(above(one, 0.9) for one in shares.values())
    return Finding(outcome, f"Median share of (λ₁² + λ₂²) in the sum of all λ²: {spectra.listed(shares)}.")


def entries(runs: Runs) -> pd.DataFrame:
    """A row for each converged start: its size n and the share of entries of its Hessian that are near zero."""
    found = []
    for start, matrix in matrices(runs, "last"):
        sizes = np.abs(matrix)
        found.append({**start, "n": len(matrix), "small": float(np.mean(sizes <= SMALL * sizes.max()))})
    if not found:
        raise BadInput(f"{runs.folder} should hold matrices of converged starts (probe.hessian.save=true), found none")
    return pd.DataFrame(found)


def matrices(runs: Runs, step: str, first_only: bool = False) -> list[tuple[dict[str, float], np.ndarray]]:
    """The Hessians of converged starts at their `first` or `last` step; with `first_only` of one start a size."""
    starts = spectra.converged(spectra.ends(runs))
    if first_only:
        starts = starts.sort_values([*spectra.START]).groupby("width", as_index=False).first()
    kept = {}
    for path in runs.folder.rglob("hessian/H-step*.npy"):
        if named := parsed(path):
            kept[path.parent.parent.name, named.replica, named.step] = path
    found = []
    for _, start in starts.sort_values(["width", "replica"]).iterrows():
        number = int(start["step"]) if step == "last" else 0
        key = start["run"], int(start["replica"]), number
        if key in kept:
            found.append(({"width": start["width"], "replica": start["replica"]}, np.load(kept[key])))
    return found


def heat_maps(runs: Runs) -> Figure:
    """Of one start for each size, before and after training."""
    shown = {step: matrices(runs, step, first_only=True) for step in ("first", "last")}
    columns = len(shown["last"])
    figure, axes = plt.subplots(2, columns, figsize=(3.4 * columns, 6.2), squeeze=False)
    for row, (step, when) in zip(axes, (("first", "before training"), ("last", "at the end")), strict=True):
        for axis, (start, matrix) in zip(row, shown[step], strict=True):
            heat_map(axis, matrix)
            axis.set_title(f"$k = {start['width']:g}$, $n = {len(matrix)}$, {when}")
            axis.set_xticks([])
            axis.set_yticks([])
    for axis in axes[:, 0]:
        axis.set_ylabel("parameter $i$")
    for axis in axes[1]:
        axis.set_xlabel("parameter $j$")
    return figure


def remark(runs: Runs) -> str:
    return (
        f"{spectra.outcomes(runs, 'width')} Parameters are in the order of the layers: weights of the first layer, its "
        "biases, and so on. Stripes without colour belong to units that no longer take part."
    )


STUDY = Study(
    title="Figure 4: the Hessian at the end of training as a heat map",
    paper=spectra.PAPER,
    setting=spectra.BLOBS,
    claims=(
        Claim(
            "sparse",
            "Most entries of the Hessian are near zero, the more so the larger the network.",
            "The median share over converged starts of entries of at most 1 % of the largest lies above one half at "
            "the largest size, and the share rises with the number of parameters n (slope over log2 n for each "
            "replica, t-interval of their mean).",
            sparse,
        ),
        Claim(
            "nearly of rank two",
            "The Hessian is that of two directions: two isolated eigenvalues, and near zero what is left.",
            "The median share over converged starts of the two largest eigenvalues in the sum of squares (|H|² of "
            "Frobenius) lies above 0.9 at every size.",
            rank_two,
        ),
    ),
    plots=(Plot("heat_maps", "Entries of H, red positive and blue negative; symmetric-log colours.", heat_maps),),
    remark=remark,
)
