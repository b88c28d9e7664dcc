"""What the studies of Cooper's theorem share: the minima that were reached, and how their eigenvalues are counted."""

import numpy as np
import pandas as pd

from runner.errors import BadInput
from runner.report.statistics import Interval, Outcome, proportion
from runner.report.study import Finding, Runs

REACHED = 1e-26  # spurious eigenvalues are of the size of the loss's square root
MOST = 0.95  # of the minima
OUTPUTS = ("dataset.classes", "arch.outputs")
SOFTMAX = "runner.loss.Brier"  # the loss whose outputs are probabilities


def endpoints(runs: Runs, *config: str) -> pd.DataFrame:
    """The last row of each run, with `samples`, `outputs`, the number of weights `n`, and how many positive eigenvalues
    the theorem `expected`: r d, or (r - 1) d of softmax outputs, which sum to one."""
    known = [key for key in OUTPUTS if key.split(".")[1] in runs.configs[0][key.split(".")[0]]]
    rows = runs.table("metrics", "dataset.size", "loss._target_", *known, *config).dropna(subset=["hessian_H_positive"])
    if rows.empty:
        raise BadInput("metrics.csv should have counts of eigenvalues at the last step, found none")
    last = rows.sort_values("step").groupby(["run", "replica"], as_index=False).last()
    counts = [f"hessian_H_{sign}" for sign in ("positive", "zero", "negative")]
    outputs = _outputs(last)
    return last.assign(
        samples=last["dataset.size"].astype(int),
        outputs=outputs,
        n=last[counts].sum(axis=1).astype(int),
        expected=(outputs - (last["loss._target_"] == SOFTMAX)) * last["dataset.size"].astype(int),
        reached=last["train_loss"] <= REACHED,
    )


def _outputs(rows: pd.DataFrame) -> pd.Series:
    """What the config names, else one for each class; data without classes have two labels for a single output."""
    classes = rows["dataset.classes"] if "dataset.classes" in rows else pd.Series(1, rows.index)
    return pd.to_numeric(rows["arch.outputs"]).fillna(classes).astype(int)


def exact(rows: pd.DataFrame) -> pd.Series:
    """Where the count is the theorem's: `expected` positive eigenvalues, none negative, all others zero."""
    return (rows["hessian_H_positive"] == rows["expected"]) & (rows["hessian_H_negative"] == 0)


def all_but_few(hits: pd.Series) -> tuple[Outcome, Interval]:
    """The theorem leaves out a null set of data, and rounding may hide an eigenvalue: holds where at least MOST of
    the minima are as it says, fails where the share is surely less, and is open below five minima."""
    found = proportion(int(hits.sum()), len(hits))
    if found.n < 5:
        return Outcome.UNDECIDED, found
    if found.value >= MOST:
        return Outcome.HOLDS, found
    return (Outcome.FAILS if found.high < MOST else Outcome.UNDECIDED), found


def gaps(runs: Runs, minima: pd.DataFrame) -> pd.DataFrame:
    """Of each minimum the `expected`-th largest |eigenvalue| and the next one, over the largest."""
    values = runs.table("hessian").query("matrix == 'H'")
    values = values[values["step"].eq(values.groupby(["run", "replica"])["step"].transform("max"))]
    sorted_by_run = {key: np.sort(rows["value"].abs())[::-1] for key, rows in values.groupby(["run", "replica"])}
    found = []
    for row in minima.to_dict("records"):
        sizes = sorted_by_run[row["run"], row["replica"]]
        last, rest = sizes[row["expected"] - 1], sizes[row["expected"] :]
        found.append({**row, "last": last / sizes[0], "next": rest.max() / sizes[0], "sizes": sizes / sizes[0]})
    return pd.DataFrame(found)


def count_of(minima: pd.DataFrame, hits: pd.Series, what: str) -> Finding:
    """The finding that this share of the minima is as the theorem says."""
    outcome, found = all_but_few(hits)
    said = f"{int(hits.sum())} of {len(hits)} minima {what} (share {found})."
    return Finding(outcome, said if minima.empty else f"{said} {_sizes(minima)}")


def _sizes(minima: pd.DataFrame) -> str:
    expected, n = minima["expected"], minima["n"]
    return f"They have {_span(expected)} residuals and {_span(n)} weights."


def _span(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low} to {high}"
