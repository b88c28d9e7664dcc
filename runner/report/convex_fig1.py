"""Figure 1 of the main paper: how its claims are judged, for the finite-difference estimate and for the exact value."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from runner.report.statistics import LEVEL, Interval, Outcome, above, all_of, below, correlation, share, trend
from runner.report.study import Claim, Finding, Runs

MOST = 0.5  # of the measured steps
TWICE = 1 / 3  # (x - y) / (x + y) where x = 2 y
PARTS = 20  # of a run
CONVERGED = 0.5  # of the loss at the start
LEVELS = 12  # at which curves are compared at equal training loss


@dataclass(frozen=True)
class Curvature:
    """A curvature along the gradient: its column, and what it is called."""

    column: str
    text: str


ESTIMATE = Curvature("fd_gHg", "the estimate")
EXACT = Curvature("split_gHg", "the exact g'Hg")
FORMS = {"raw": "g'Hg", "per_gg": "g'Hg / g'g", "times_mu": "mu g'Hg / g'g"}


def in_forms(rows: pd.DataFrame, curvature: Curvature) -> pd.DataFrame:
    """The rows where it was measured, with its three forms, the epoch (counted from 1) in which a row lies, and the
    training loss, a running mean over five rows since a batch's is noisy."""
    needed = [curvature.column, "grad_norm", "train_loss"]
    rows = rows[np.isfinite(rows[needed]).all(axis=1)].sort_values("step")  # not finite: where a run diverged
    raw, gg = rows[curvature.column], rows["grad_norm"] ** 2
    losses = rows.groupby(["width", "seed"])["train_loss"]
    smooth = losses.transform(lambda loss: loss.rolling(5, center=True, min_periods=1).mean())
    forms = {"raw": raw, "per_gg": raw / gg, "times_mu": rows["lr"] * raw / gg}
    return rows.assign(**forms, epoch=in_epoch(rows), loss=smooth)


def in_epoch(rows: pd.DataFrame) -> pd.Series:
    """The last row, after the last update, counts to the last epoch."""
    last = np.ceil(rows["epoch"].max())
    return (np.floor(rows["epoch"] + 1e-9) + 1).clip(upper=max(last, 1))


def positive(rows: pd.DataFrame, curvature: Curvature) -> Finding:
    """Claim (a); the sign is the same in all three forms."""
    rows = in_forms(rows, curvature)
    outcome, said = most_steps(rows, rows["raw"] > 0)
    return Finding(outcome, f"Share of steps with g'Hg > 0: {said}.")


def most_steps(rows: pd.DataFrame, hits: pd.Series) -> tuple[Outcome, str]:
    """Whether `hits` are true at most of the steps of a run at every width, a mean over seeds; and their shares."""
    shares = hits.groupby([rows["width"], rows["seed"]]).mean()
    level = 1 - (1 - LEVEL) / max(rows["width"].nunique(), 1)  # at which all widths hold together (Bonferroni)
    found = {width: share(values, level) for width, values in shares.groupby("width")}
    said = ", ".join(f"{one} at width {width:g}" for width, one in found.items())
    return all_of(above(one, MOST) for one in found.values()), said


def high_at_both_ends(rows: pd.DataFrame, curvature: Curvature, form: str) -> Finding:
    """Claim (b)."""
    rows = in_forms(rows, curvature)
    values, losses = along_training(rows, form), along_training(rows, "train_loss")
    between = lowest_between(values)
    start, end = (
        correlation(excess(values[part], between).groupby("seed").mean()) for part in (0, PARTS - 1)
    )  # a mean over widths first: what is independent are the seeds
    left = float((losses[PARTS - 1] / losses[0]).mean())
    ended = above(end, TWICE) if left < CONVERGED else Outcome.UNDECIDED
    means = ", ".join(f"{one.mean():.3g}" for one in (values[0], between, values[PARTS - 1]))
    said = f"{FORMS[form]} in the first twentieth, the lowest tenth between and the last twentieth: {means}; excess"
    return Finding(
        all_of([above(start, TWICE), ended]),
        f"{said} {start} at the start, {end} at the end, where {left:.0%} of the training loss is left.",
    )


def along_training(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Means over each twentieth of the steps, in columns, a row for each width and seed."""
    done = rows["step"] / rows.groupby(["width", "seed"])["step"].transform("max").clip(lower=1)
    part = np.floor(done * PARTS).clip(upper=PARTS - 1).astype(int)
    table = rows.pivot_table(index=["width", "seed"], columns=part, values=column)
    return table.reindex(columns=range(PARTS))


def lowest_between(values: pd.DataFrame) -> pd.Series:
    """Of each row the mean over the tenth of the steps, between the first and the last twentieth, in which it is
    nearest to zero: at each width where it is so for the other half of the seeds, since of a noisy curve some tenth
    always is."""
    tenths = values.iloc[:, 1:-1].T.rolling(2, min_periods=1).mean().T.iloc[:, 1:]
    found = []
    for _, runs in tenths.groupby("width"):
        odd = np.arange(len(runs)) % 2 == 1
        for own in (odd, ~odd):
            others = runs[~own] if not own.all() else runs
            found.append(runs.loc[own, others.mean().abs().idxmin()])
    return pd.concat(found).reindex(values.index)


def excess(end: pd.Series, middle: pd.Series) -> pd.Series:
    """(end - |middle|) / (|end| + |middle|): from -1 to 1, 1/3 where the end is twice the middle's size, -1 where it is
    negative."""
    return (end - middle.abs()) / (end.abs() + middle.abs())


def wider_is_larger(rows: pd.DataFrame, curvature: Curvature, form: str) -> Finding:
    """Claim (c), at equal epoch."""
    rows = in_forms(rows, curvature)
    medians = rows.groupby("width")[form].median()  # a mean would be that of the first steps, which dwarf all others
    told = ", ".join(f"{value:.3g} at width {width:g}" for width, value in medians.items())
    larger, each = share_of_wider(rows, form, "epoch"), comparisons(rows, form, "epoch")
    epoch = each.index.get_level_values("point")
    quarters = each.groupby(np.ceil(4 * epoch / epoch.max())).mean() if len(each) else each
    said = f"The wider network's {FORMS[form]} is larger in a share of {larger} of the comparisons at equal epoch"
    by_quarter = ", ".join(f"{value:.2g}" for value in quarters)
    return Finding(above(larger, 0.5), f"{said} ({by_quarter} in the quarters of training); median over it {told}.")


def share_of_wider(rows: pd.DataFrame, form: str, at: str) -> Interval:
    """The share of `comparisons` in which the wider network's is larger, of each seed by itself."""
    return share(comparisons(rows, form, at).groupby("seed").mean())


def comparisons(rows: pd.DataFrame, form: str, at: str) -> pd.Series:
    """For each seed, point and pair of widths 1 where the wider network's mean is larger, 0 where it is smaller. Points
    are the epochs, or levels of the training loss."""
    point = rows["epoch"] if at == "epoch" else at_levels(rows["loss"])
    table = rows.assign(point=point).pivot_table(index=["seed", "point"], columns="width", values=form)
    pairs = [_larger(table[wide], table[narrow]) for narrow, wide in combinations(table.columns, 2)]
    return pd.concat(pairs) if pairs else pd.Series(dtype=float, index=table.index[:0])


def at_levels(losses: pd.Series) -> pd.Series:
    """In which of the levels, equal in the logarithm, each of them lies."""
    return pd.cut(np.log(losses), LEVELS, labels=False)


def _larger(wide: pd.Series, narrow: pd.Series) -> pd.Series:
    """1, 0, or 1/2 where they are equal."""
    return (np.sign((wide - narrow).dropna()) + 1) / 2


def lower_error(rows: pd.DataFrame) -> Finding:
    """Claim (d)."""
    last = rows.dropna(subset=["test_error"]).sort_values("step").groupby(["width", "seed"]).tail(1)
    change = trend(last, "test_error", "width", log=False)
    means = ", ".join(
        f"{one:.1%} at width {width:g}" for width, one in last.groupby("width")["test_error"].mean().items()
    )
    return Finding(below(change), f"Test error at the end: {means}; change for each doubling {change}.")


def claims(curvature: Curvature, of: str = "") -> tuple[Claim, ...]:
    """(a) to (c) of a sweep for one curvature, (b) and (c) in each of the forms. `of` names it in the claims' names."""
    return (
        Claim(
            f"{of}positive",
            f"(a) The curvature along the gradient, here {curvature.text}, stays positive for most of training.",
            f"The share of measured steps with g'Hg > 0, a mean over seeds, lies above {MOST:g} at every width, "
            "with intervals that hold together (Bonferroni). The sign is the same for g'Hg, g'Hg / g'g and "
            "mu g'Hg / g'g.",
            lambda runs: positive(paper_setting(runs), curvature),
        ),
        *(_high_at_both_ends(curvature, form, of) for form in FORMS),
        *(_wider_is_larger(curvature, form, of) for form in FORMS),
    )


def at_equal_loss(judged: Curvature, beside: Curvature) -> Claim:
    """The control of claim (c): wider networks are further in training at equal epoch."""

    def judge(runs: Runs) -> Finding:
        rows = paper_setting(runs)
        found = {one.text: share_of_wider(in_forms(rows, one), "per_gg", "loss") for one in (judged, beside)}
        said = ", ".join(f"{share} for {text}" for text, share in found.items())
        return Finding(
            above(found[judged.text], 0.5),
            f"Share of comparisons at equal training loss in which the wider network's is larger: {said}.",
        )

    return Claim(
        "equal loss",
        f"(c) at equal training loss: the wider the network, the larger {judged.text}, per g'g.",
        "Over twelve levels of the training loss and all pairs of widths of a seed, the share in which the wider "
        "network's is larger has an interval over seeds above 1/2.",
        judge,
    )


def _high_at_both_ends(curvature: Curvature, form: str, of: str) -> Claim:
    return Claim(
        f"{of}high at both ends, {FORMS[form]}",
        f"(b) It is larger at the start and when converged, near zero between; here {curvature.text} as {FORMS[form]}.",
        "With x the mean over the first or the last twentieth of the steps and y that over the tenth between them in "
        "which it is nearest to zero (at each width, and for the other half of the seeds), the excess "
        "(x - |y|) / (|x| + |y|) is 1/3 where x is twice |y|, and -1 where x is negative. Its mean over widths, "
        "with the interval over seeds, lies above 1/3 at both ends; it fails if it lies below at one. The end is left "
        f"open unless the training loss there has come down to less than {CONVERGED:.0%} of that at the start: runs "
        "that train less can only fail, or stay open.",
        lambda runs: high_at_both_ends(paper_setting(runs), curvature, form),
    )


def _wider_is_larger(curvature: Curvature, form: str, of: str) -> Claim:
    return Claim(
        f"{of}wider is larger, {FORMS[form]}",
        f"(c) The wider the network, the larger it is; here {curvature.text} as {FORMS[form]}.",
        "Over all epochs and pairs of widths of a seed, the share in which the wider network's mean over the epoch's "
        "measured steps is larger has an interval over seeds above 1/2."
        + (" At equal epoch mu is equal too: the same verdict as that of g'Hg / g'g." if form == "times_mu" else ""),
        lambda runs: wider_is_larger(paper_setting(runs), curvature, form),
    )


LOWER_ERROR = Claim(
    "lower test error",
    "(d) The wider the network, the lower its test error.",
    "The change of the last test error for each doubling of the width, fitted for each seed, lies below zero.",
    lambda runs: lower_error(paper_setting(runs)),
)


def paper_setting(runs: Runs) -> pd.DataFrame:
    """The rows of metrics.csv of the paper's own setting: all of them, unless the sweep has others too."""
    if "setting" not in runs.configs[0].get("recipe", {}):
        return runs.metrics
    rows = runs.table("metrics", "recipe.setting")
    return rows[rows["recipe.setting"] == "paper"]


def outcomes(runs: Runs, curvature: Curvature) -> str:
    """In a sentence, what becomes of claims (a) to (c)."""
    rows = paper_setting(runs)
    said = [f"(a) {positive(rows, curvature).outcome}"]
    for letter, rule in (("b", high_at_both_ends), ("c", wider_is_larger)):
        found = {text: rule(rows, curvature, form).outcome for form, text in FORMS.items()}
        said.append(f"({letter}) {grouped(found)}")
    return "; ".join(said)


def grouped(found: dict[str, Outcome]) -> str:
    """`holds for g'Hg, does not hold for g'Hg / g'g and mu g'Hg / g'g`; the outcome alone where all agree."""
    if len(set(found.values())) == 1:
        one = next(iter(found.values()))
        return "holds in no form" if one is Outcome.FAILS else f"{one} in every form"
    kinds = {one: [text for text, outcome in found.items() if outcome is one] for one in found.values()}
    return ", ".join(f"{one} for {' and '.join(texts)}" for one, texts in kinds.items())


def diverged(runs: Runs) -> str:
    """A sentence on the runs that did, if any: their rows before that count."""
    status = runs.metrics.groupby("run")["status"].last()
    count = int((status == "diverged").sum())
    return f" {count} of {len(status)} runs diverged; what they measured before that counts." if count else ""


def on_the_exact(runs: Runs) -> str:
    """What becomes of the claims that are made for the estimate, and how either value goes with the rate."""
    return (
        f"For the exact g'Hg of the same steps: {outcomes(runs, EXACT)}. {in_quarters(runs, ESTIMATE, EXACT)}"
        f"{diverged(runs)}"
    )


def in_quarters(runs: Runs, *curvatures: Curvature) -> str:
    """A sentence on mu g'Hg / g'g before and after the halvings, which lie between the quarters of training."""
    said = []
    for one in curvatures:
        rows = in_forms(paper_setting(runs), one)
        quarter = np.floor(4 * rows["step"] / rows["step"].max()).clip(upper=3)
        medians = rows.groupby(quarter)["times_mu"].median()
        said.append(f"{', '.join(f'{value:.2g}' for value in medians)} for {one.text}")
    return (
        f"Medians of mu g'Hg / g'g in the quarters of training: {'; '.join(said)}. It is 1 where a step along g ends "
        "at a gradient that is orthogonal to g (for the exact value, were the loss quadratic)."
    )
