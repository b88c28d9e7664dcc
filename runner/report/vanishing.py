"""What the studies of vanishing curvature share: random networks at their start, and how sizes go with depth."""

import numpy as np
import pandas as pd

from runner.errors import BadInput
from runner.report.statistics import Interval, mean
from runner.report.study import Runs

FORMULAS = {"gradient": "$|g|$", "curvature": "$\\max|\\lambda(H)|$", "norm": "$|H|_F$"}
SIZES = tuple(FORMULAS)
POWERS = {"gradient": 0.5, "curvature": 1.0, "norm": 1.0}  # of the depth, by which many equal layers make a size grow


def starts(runs: Runs, *config: str) -> pd.DataFrame:
    """Step 0 of every replica: `gradient` = |g| and `curvature` = the largest |eigenvalue| of H, and where it was
    measured `norm` = |H|_F, with `depth` and `units`. `dead`: no gradient at all, as no signal comes through."""
    rows = runs.table("metrics", "arch.depth", "arch.base_width", *config)
    rows = rows[rows["step"] == 0]
    if rows.empty:
        raise BadInput("metrics.csv should have rows of step 0, found none")
    ends = rows[["spectrum_largest", "spectrum_smallest"]].abs().max(axis=1)
    return rows.assign(
        depth=rows["arch.depth"].astype(int),
        units=(rows["arch.base_width"] * rows["width"]).round().astype(int),
        network=rows["seed"] + rows["replica"],
        gradient=rows["grad_norm"],
        curvature=ends,
        norm=rows.get("trace_H_frobenius", np.nan),
        dead=rows["grad_norm"] == 0,
    )


def living(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks whose sizes have a logarithm. To leave the others out makes vanishing look weaker than it is."""
    return rows[(rows["gradient"] > 0) & (rows["curvature"] > 0)]


def rates(rows: pd.DataFrame, size: str) -> pd.Series:
    """For each network's seed the least-squares slope of `logarithms` over depth, from at least three depths at which
    it is alive."""
    found = {}
    for network, one in living(rows).groupby("network"):
        if one["depth"].nunique() >= min(3, rows["depth"].nunique()):
            found[network] = float(np.polyfit(one["depth"], logarithms(one, size), 1)[0])
    return pd.Series(found, dtype=float)


def logarithms(rows: pd.DataFrame, size: str) -> pd.Series:
    """ln size, per layer: of the root mean square over layers of the gradient, and of curvature and norm over the
    depth, so that many layers do not look like growth."""
    return pd.Series(np.log(rows[size]) - POWERS[size] * np.log(rows["depth"]), rows.index)


def change(rows: pd.DataFrame, size: str, shallow: int, deep: int) -> Interval:
    """The mean over networks of ln(size at the depth `deep` / size at `shallow`), each seed by itself."""
    table = living(rows).pivot_table(index="network", columns="depth", values=size)
    if shallow not in table or deep not in table:
        raise BadInput(f"the runs should have living networks at depths {shallow} and {deep}, found none")
    return mean(np.log(table[deep] / table[shallow]))


def each(found: dict[str, Interval]) -> str:
    """In words: the finding for each size."""
    return ", ".join(f"{one} for the {size}" for size, one in found.items())


def cells(rows: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Of each setting, over all networks, dead ones included, the median, the mean and the root mean square; over the
    living exp(mean log), `typical`; and the share of dead ones."""
    found = []
    for key, one in rows.groupby(list(by)):
        alive = living(one)
        cell = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        for size in SIZES:
            cell |= {
                f"{size}_median": one[size].median(),
                f"{size}_typical": np.exp(np.log(alive[size]).mean()) if len(alive) else np.nan,
                f"{size}_mean": one[size].mean(),
                f"{size}_rms": np.sqrt((one[size] ** 2).mean()),
            }
        found.append({**cell, "dead": one["dead"].mean()})
    return pd.DataFrame(found)
