"""What the estimate of Figure 1 sees: beside the exact curvature and its parts, on the same steps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.errors import BadInput
from runner.report.convex_fig1 import (
    EXACT,
    LOWER_ERROR,
    Curvature,
    at_equal_loss,
    claims,
    diverged,
    in_forms,
    most_steps,
    outcomes,
    paper_setting,
    positive,
    share_of_wider,
)
from runner.report.convex_fig1_exact_plots import CONFIG, PLOTS, described, settings
from runner.report.statistics import Interval, Outcome, above, all_of, bounded, correlation, mean
from runner.report.study import Claim, Finding, Runs, Study

ESTIMATE = Curvature("fd_gHg_mulr", "the estimate")
SMALLEST = Curvature("fd_gHg_mu1e-3", "the estimate at mu = 1e-3")
FOLLOWS = 0.9  # rank correlation


def tells_the_curvature(runs: Runs) -> Finding:
    """Rank correlation of estimate and exact value over the steps of a run, both per g'g."""
    rows = paper_setting(runs)
    each = correlations(rows, ESTIMATE)
    at_lr, at_smallest = (
        correlation(one.groupby("seed").mean()) for one in (each, correlations(rows, SMALLEST))
    )  # a mean over widths
    widths = ", ".join(f"{correlation(one)} at width {width:g}" for width, one in each.groupby("width"))
    return Finding(
        above(at_lr, FOLLOWS),
        f"Rank correlation over the steps of a run: {at_lr} at mu = lr ({widths}), {at_smallest} at mu = 1e-3.",
    )


def correlations(rows: pd.DataFrame, estimate: Curvature) -> pd.Series:
    """That of each width and seed."""
    rows = rows.dropna(subset=[estimate.column, EXACT.column])
    gg = rows["grad_norm"] ** 2
    both = rows[["width", "seed"]].assign(estimate=rows[estimate.column] / gg, exact=rows[EXACT.column] / gg)
    each = {key: one["estimate"].corr(one["exact"], "spearman") for key, one in both.groupby(["width", "seed"])}
    return pd.Series(each).rename_axis(["width", "seed"])


def nearer_to_the_curvature(runs: Runs) -> Finding:
    """Is the estimate nearer to the exact value than to its decorrelation level?"""
    rows = paper_setting(runs).dropna(subset=[ESTIMATE.column, EXACT.column])
    to_level = (rows[ESTIMATE.column] - rows["fd_decorrelated_mulr"]).abs()
    to_exact = (rows[ESTIMATE.column] - rows[EXACT.column]).abs()
    outcome, said = most_steps(rows, to_exact < to_level)
    ratio = (rows[ESTIMATE.column] / rows["fd_decorrelated_mulr"]).groupby(rows["width"]).median()
    levels = ", ".join(f"{one:.0%} at width {width:g}" for width, one in ratio.items())
    return Finding(
        outcome,
        f"Share of steps at which it is nearer to the exact value: {said}. It is {levels} of that level (median).",
    )


def closes_the_gap(runs: Runs) -> Finding:
    """Does a smaller mu bring the estimate to the exact value?"""
    found = {described(rows): (closing(rows), rows) for _, rows in settings(runs.table("metrics", *CONFIG))}
    said = "; ".join(
        f"{name}: {_size(gap(rows, ESTIMATE))} at mu = lr, {_size(gap(rows, SMALLEST))} at mu = 1e-3"
        for name, (_, rows) in found.items()
    )
    outcome = all_of(outcome for outcome, _ in found.values())
    return Finding(outcome, f"Median gap, relative to |g'Gg| + |g'H_r g|. {said}.")


def _size(gaps: pd.Series) -> Interval:
    return bounded(mean(gaps), 0.0, np.inf)


def closing(rows: pd.DataFrame) -> Outcome:
    """Does the gap fall by more than half?"""
    return above(mean(np.log2(gap(rows, ESTIMATE) / gap(rows, SMALLEST))), 1)


def gap(rows: pd.DataFrame, estimate: Curvature) -> pd.Series:
    """|estimate - exact| / (|g'Gg| + |g'H_r g|), the median over the steps of each seed."""
    size = rows["split_gGg"].abs() + rows["split_gHrg"].abs()
    distance = ((rows[estimate.column] - rows[EXACT.column]).abs() / size).replace(np.inf, np.nan)
    return distance.groupby(rows["seed"]).median().clip(lower=1e-12)


def held_out(runs: Runs) -> Finding:
    """Claim (a) for the exact curvature of a batch that g is not from."""
    rows = paper_setting(runs).dropna(subset=["split_heldout_gHg"])
    outcome, said = most_steps(rows, rows["split_heldout_gHg"] > 0)
    ratio = (
        (rows["split_heldout_gHg"] / rows["grad_norm"] ** 2).median(),
        (rows["split_gHg"] / rows["grad_norm"] ** 2).median(),
    )
    return Finding(
        outcome,
        f"Share of steps with g'Hg > 0 on the held-out batch: {said}; median g'Hg / g'g {ratio[0]:.3g} there, "
        f"{ratio[1]:.3g} on the training batch.",
    )


def rates(runs: Runs) -> dict[float, pd.DataFrame]:
    """The runs of the paper's network at each rate."""
    rows = runs.table("metrics", *CONFIG)
    rows = rows[(rows["arch.activation"] == "relu") & (rows["arch.norm"] == "batch")]
    found = dict(list(rows.groupby("optimizer.lr")))
    if len(found) < 2:
        raise BadInput("several rates, found one only")
    return found


def same_order_at_every_rate(runs: Runs) -> Finding:
    """Is the order of the widths the same at every rate, for the exact curvature per g'g?"""
    found = {rate: share_of_wider(in_forms(rows, EXACT), "per_gg", "epoch") for rate, rows in rates(runs).items()}
    said = ", ".join(f"{one} at rate {rate:g}" for rate, one in found.items())
    text = f"Share of comparisons at equal epoch in which the wider network's is larger: {said}."
    return Finding(same([above(one, 0.5) for one in found.values()]), text)


def same_sign_at_every_rate(runs: Runs) -> Finding:
    """Is the verdict on (a) the same at every rate?"""
    found = {rate: positive(rows, EXACT) for rate, rows in rates(runs).items()}
    said = " ".join(f"Rate {rate:g}: {one.outcome}. {one.measured}" for rate, one in found.items())
    return Finding(same([one.outcome for one in found.values()]), said)


def same(outcomes: Sequence[Outcome]) -> Outcome:
    """Holds where all are, as far as none is open."""
    if Outcome.UNDECIDED in outcomes:
        return Outcome.UNDECIDED if len(set(outcomes) - {Outcome.UNDECIDED}) < 2 else Outcome.FAILS
    return Outcome.HOLDS if len(set(outcomes)) == 1 else Outcome.FAILS


def in_plain_words(runs: Runs) -> str:
    """What the estimate sees, and what becomes of the claims."""
    rows = paper_setting(runs).dropna(subset=[ESTIMATE.column, EXACT.column])
    level = rows[ESTIMATE.column] / rows["fd_decorrelated_mulr"]
    first = rows["step"] <= 0.1 * rows["step"].max()
    negative = {name: (rows[name] < 0).mean() for name in (ESTIMATE.column, EXACT.column)}
    hidden = ((rows[EXACT.column] < 0) & (rows[ESTIMATE.column] > 0)).sum()
    return (
        "In the paper's setting the step from w to w - mu g is a whole training step. Where the gradient at its end is "
        "orthogonal to the one at its start, the estimate is g'g / mu, whatever the curvature: a quantity that knows "
        "only the gradient's length and the rate, is never negative, and doubles with each halving of the rate. Here "
        f"the estimate is {level[first].median():.0%} of that level in the first tenth of training and "
        f"{level.median():.0%} over all of it (medians). It is negative at {negative[ESTIMATE.column]:.0%} of the "
        f"steps, the exact g'Hg at {negative[EXACT.column]:.0%}; at {hidden} of {len(rows)} measured steps the exact "
        f"curvature is negative and the estimate positive. {_where_it_closes(runs)}Do the paper's claims hold? For the "
        f"exact g'Hg: {outcomes(runs, EXACT)}. For the estimate of the same steps: {outcomes(runs, ESTIMATE)}. Neither "
        "value is the curvature: on a ReLU network the exact one leaves the kinks out, which a finite step sees."
        f"{diverged(runs)}"
    )


def _where_it_closes(runs: Runs) -> str:
    """In which settings a smaller mu brings the estimate to the exact value, and in which it does not."""
    found = {described(rows): closing(rows) for _, rows in settings(runs.table("metrics", *CONFIG))}
    does = [name for name, outcome in found.items() if outcome is Outcome.HOLDS]
    rest = [name for name, outcome in found.items() if outcome is not Outcome.HOLDS]
    falls = "From mu = lr to 1e-3 the gap between the estimate and the exact value falls by more than half"
    closed = f"{falls} with {'; '.join(does)}. " if does else ""
    return closed + (f"It does not, or that is open, with {'; '.join(rest)}. " if rest and does else "")


STUDY = Study(
    title="What the estimate of Figure 1 sees",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="The setting of Figure 1 on CIFAR-100 (the small form: three blocks a stage, 200 images in batches of 20, "
    "12 epochs, measured at every tenth step), and others that differ from it in the rate, the activation or the "
    "normalisation. On the same steps: the paper's estimate at mu = lr, at mu = 1e-2 and 1e-3, the exact g'Hg, g'Gg "
    "and g'H_r g, on the training batch and on a held-out one along the same g.",
    claims=(
        *claims(EXACT, "exact: "),
        LOWER_ERROR,
        Claim(
            "the estimate follows",
            "(ours) The estimate at mu = lr tells the exact curvature along the gradient.",
            f"Spearman's rank correlation of the two, per g'g, over the steps of a run in the paper's setting, a mean "
            f"over widths, lies above {FOLLOWS:g} with its interval over seeds.",
            tells_the_curvature,
        ),
        Claim(
            "the estimate is near",
            "(ours) The estimate at mu = lr is nearer to the exact curvature than to its decorrelation level g'g / mu.",
            "The share of steps at which it is, a mean over seeds, lies above 1/2 at every width, with intervals "
            "that hold together (Bonferroni).",
            nearer_to_the_curvature,
        ),
        Claim(
            "smaller mu",
            "(ours) A smaller mu brings the estimate to the exact value, in every setting.",
            "From mu = lr to 1e-3 the median of |estimate - exact| / (|g'Gg| + |g'H_r g|) over the steps falls by more "
            "than half in every setting, with its interval over seeds.",
            closes_the_gap,
        ),
        Claim(
            "held out",
            "(a) on a held-out batch: the exact curvature along g stays positive for most of training there too.",
            "The share of steps with g'Hg > 0 on the held-out batch, a mean over seeds, lies above 1/2 at every width, "
            "with intervals that hold together (Bonferroni).",
            held_out,
        ),
        at_equal_loss(EXACT, ESTIMATE),
        Claim(
            "every rate, (a)",
            "(a) does not depend on the rate: the verdict on the exact g'Hg is the same at each.",
            "The verdict on (a), ReLU with batch norm, is the same at every rate of the sweep; open if one of them is, "
            "unless two others differ.",
            same_sign_at_every_rate,
        ),
        Claim(
            "every rate",
            "(c) does not depend on the rate: the order of widths in the exact g'Hg / g'g is the same at each.",
            "The verdict on (c), ReLU with batch norm, is the same at every rate of the sweep; open if one of them is, "
            "unless two others differ.",
            same_order_at_every_rate,
        ),
    ),
    plots=PLOTS,
    remark=in_plain_words,
)
