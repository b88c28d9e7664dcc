"""Figure 1 and what its estimate sees: every rule both ways, on sweeps made by hand."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake import Job, fake_sweep
from matplotlib import pyplot as plt

from runner.report.convex_fig1 import ESTIMATE, in_forms, lowest_between, share_of_wider
from runner.report.statistics import Outcome
from runner.report.studies import convex_fig1_cifar100, convex_fig1_exact, convex_fig1_tiny_imagenet
from runner.report.study import Runs, Study, judged

HOLDS, FAILS, OPEN = Outcome.HOLDS, Outcome.FAILS, Outcome.UNDECIDED
STEPS = np.arange(0, 101, 5)
Law = Callable[[float, np.ndarray], Any]  # width, share of training done -> value, one for each step
SETTINGS = {"paper": ("relu", "batch", 0.1), "low_rate": ("relu", "batch", 0.02), "smooth": ("softplus", "none", 0.1)}


def valley(width: float, done: np.ndarray) -> np.ndarray:
    """High at both ends, near zero between, larger in wider networks."""
    return width * np.where((done < 0.15) | (done > 0.85), 10.0, 0.1)


def early(width: float, done: np.ndarray) -> np.ndarray:
    """The same, with the valley soon after the start."""
    return width * np.where((done > 0.05) & (done < 0.16), 0.1, 10.0)


def climbing(width: float, done: np.ndarray) -> np.ndarray:
    return width * (1 + done)


def narrow(width: float, done: np.ndarray) -> np.ndarray:
    return (0.1 + done) / width


def hill(width: float, done: np.ndarray) -> np.ndarray:
    return np.where((done < 0.15) | (done > 0.85), 0.1, 10.0) / width


def negative(width: float, done: np.ndarray) -> np.ndarray:
    return -valley(width, done)


def falling(width: float, done: np.ndarray) -> np.ndarray:
    return 4 * 0.1**done / width**0.1


def metrics(
    width: float,
    seed: int,
    estimate: Law = valley,
    exact: Law = valley,
    loss: Law = falling,
    error: float = -0.1,
    suffix: str = "",
    rate: float = 0.1,
    small: Law | None = None,
) -> pd.DataFrame:
    """The rows of a run with |g| = 1 and halvings; `error`: how the test error goes with the width."""
    done = STEPS / STEPS[-1]
    noise = 1 + 0.01 * np.sin(seed + 1 + 3 * done)
    gHg = noise * estimate(width, done) * np.ones_like(done)
    true = (1 + 0.01 * np.cos(7 * seed + 11 * done)) * exact(width, done)
    lr = rate * 0.5 ** np.minimum(STEPS // 25, 3)
    split = {"gHg": true, "gGg": np.abs(true) * 1.5, "gHrg": true - np.abs(true) * 1.5}
    return pd.DataFrame({
        "step": STEPS, "epoch": STEPS / 10, "lr": lr, "train_loss": loss(width, done),
        "test_error": np.where(STEPS == 100, 0.5 + error * np.log2(width) * noise[0], np.nan), "grad_norm": 1.0,
        f"fd_gHg{suffix}": gHg, f"fd_decorrelated{suffix}": 1 / lr,
        **{f"split_{name}": value for name, value in split.items()},
        **{f"split_heldout_{name}": value for name, value in split.items()},
        **{f"fd_gHg_mu{mu}": noise * (small or exact)(width, done) for mu in ("1e-2", "1e-3")},
        "fd_heldout_gHg_mulr": gHg,
    })  # fmt: skip


def epochs(width: float, seed: int) -> pd.DataFrame:
    rows = metrics(width, seed)
    return pd.DataFrame({
        "epoch": rows["epoch"], "fd_gHg_mean": rows["fd_gHg"], "fd_gHg_std": 0.1, "fd_gHg_negative": 0.0,
    })  # fmt: skip


def figure1(folder: Path, seeds: int = 3, **laws: Any) -> Runs:
    jobs: list[Job] = [
        ({"width": width, "seed": seed}, {"metrics": metrics(width, seed, **laws), "epochs": epochs(width, seed)})
        for width in (1.0, 2.0)
        for seed in range(seeds)
    ]
    return Runs(fake_sweep(folder / "sweep", "convex_fig1_cifar100", jobs))


def beside_the_exact(folder: Path, rates: dict[str, Law] | None = None, **laws: Any) -> Runs:
    """`rates`: the exact values of settings that differ from the paper's."""
    jobs: list[Job] = []
    for name, (activation, norm, rate) in SETTINGS.items():
        given = {**laws, **({"exact": rates[name]} if rates and name in rates else {})}
        about = {"recipe.setting": name, "arch.activation": activation, "arch.norm": norm, "optimizer.lr": rate}
        for width in (1.0, 2.0):
            for seed in range(3):
                rows = metrics(width, seed, suffix="_mulr", rate=rate, **given)
                jobs.append(({"width": width, "seed": seed, **about}, {"metrics": rows}))
    return Runs(fake_sweep(folder / "sweep", "convex_fig1_exact", jobs))


def verdict(study: Study, name: str, runs: Runs) -> Outcome:
    (claim,) = [one for one in study.claims if one.name == name]
    return judged(claim, runs).outcome


@pytest.mark.parametrize(("law", "expected"), [(valley, HOLDS), (negative, FAILS)])
def test_positive(tmp_path: Path, law: Law, expected: Outcome) -> None:
    assert verdict(convex_fig1_cifar100.STUDY, "positive", figure1(tmp_path, estimate=law)) is expected


@pytest.mark.parametrize("form", ["g'Hg", "g'Hg / g'g", "mu g'Hg / g'g"])
class TestForms:
    @pytest.mark.parametrize(
        ("law", "expected"), [(valley, HOLDS), (early, HOLDS), (hill, FAILS), (negative, FAILS), (climbing, FAILS)]
    )
    def test_high_at_both_ends(self, tmp_path: Path, form: str, law: Law, expected: Outcome) -> None:
        runs = figure1(tmp_path, estimate=law)
        assert verdict(convex_fig1_cifar100.STUDY, f"high at both ends, {form}", runs) is expected

    def test_the_end_is_open_unless_the_loss_came_down(self, tmp_path: Path, form: str) -> None:
        runs = figure1(tmp_path, loss=lambda width, done: 4 - done)
        assert verdict(convex_fig1_cifar100.STUDY, f"high at both ends, {form}", runs) is OPEN

    @pytest.mark.parametrize(("law", "expected"), [(valley, HOLDS), (hill, FAILS)])
    def test_wider_is_larger(self, tmp_path: Path, form: str, law: Law, expected: Outcome) -> None:
        runs = figure1(tmp_path, estimate=law)
        assert verdict(convex_fig1_cifar100.STUDY, f"wider is larger, {form}", runs) is expected


@pytest.mark.parametrize(("law", "expected"), [(climbing, HOLDS), (narrow, FAILS)])
def test_wider_is_larger_at_equal_loss(tmp_path: Path, law: Law, expected: Outcome) -> None:
    assert verdict(convex_fig1_cifar100.STUDY, "equal loss", figure1(tmp_path, estimate=law)) is expected


def test_what_halving_does_to_the_estimate_is_seen_in_mu_times_it(tmp_path: Path) -> None:
    """An estimate at its decorrelation level: larger at the end per g'g, flat times mu."""
    runs = figure1(tmp_path, estimate=lambda width, done: 10 * 2 ** np.minimum(done * 100 // 25, 3))
    rows = runs.metrics
    assert np.ptp(rows["lr"] * rows["fd_gHg"]) < 0.15
    assert verdict(convex_fig1_cifar100.STUDY, "high at both ends, mu g'Hg / g'g", runs) is FAILS


def test_the_lowest_of_a_noisy_curve_is_looked_for_in_other_seeds() -> None:
    """Of the curve's own values it would lie far below those at the ends."""
    index = pd.MultiIndex.from_product([[1.0, 2.0], range(40)], names=["width", "seed"])
    values = pd.DataFrame(np.random.default_rng(0).normal(10, 5, (80, 20)), index)
    found = lowest_between(values)
    assert found.mean() == pytest.approx(10, abs=1.5)
    assert values.iloc[:, 1:-1].abs().min(axis=1).mean() < 4
    assert list(found.index) == list(index)
    dip = values.copy()
    dip[[7, 8]] = 0.0
    assert lowest_between(dip).eq(0).all()
    assert lowest_between(dip.iloc[:1]).eq(0).all()


@pytest.mark.parametrize(("error", "expected"), [(-0.1, HOLDS), (0.1, FAILS)])
def test_lower_error(tmp_path: Path, error: float, expected: Outcome) -> None:
    runs = figure1(tmp_path, error=error)
    assert verdict(convex_fig1_tiny_imagenet.STUDY, "lower test error", runs) is expected


def test_one_seed_decides_nothing_about_widths(tmp_path: Path) -> None:
    runs = figure1(tmp_path, seeds=1)
    assert verdict(convex_fig1_cifar100.STUDY, "lower test error", runs) is OPEN
    assert verdict(convex_fig1_cifar100.STUDY, "wider is larger, g'Hg", runs) is OPEN


def rising(width: float, done: np.ndarray) -> np.ndarray:
    return width * (0.1 + done)


def flat(width: float, done: np.ndarray) -> np.ndarray:
    return 0.95 * 10 * 2 ** np.minimum(done * 100 // 25, 3)


@pytest.mark.parametrize(
    ("name", "laws", "expected"),
    [
        ("exact: positive", {"exact": rising}, HOLDS),
        ("exact: positive", {"exact": negative}, FAILS),
        ("exact: wider is larger, g'Hg", {"exact": rising}, HOLDS),
        ("exact: wider is larger, g'Hg", {"exact": narrow}, FAILS),
        ("the estimate follows", {"estimate": rising, "exact": rising}, HOLDS),
        ("the estimate follows", {"estimate": flat, "exact": negative}, FAILS),
        ("the estimate is near", {"estimate": rising, "exact": rising}, HOLDS),
        ("the estimate is near", {"estimate": flat, "exact": rising}, FAILS),
        ("smaller mu", {"estimate": flat, "exact": rising}, HOLDS),
        ("smaller mu", {"estimate": rising, "exact": rising, "small": flat}, FAILS),
        ("held out", {"exact": rising}, HOLDS),
        ("held out", {"exact": negative}, FAILS),
        ("equal loss", {"exact": rising, "loss": lambda width, done: 4 - done}, HOLDS),
        ("equal loss", {"exact": narrow, "loss": lambda width, done: 4 - done}, FAILS),
        ("every rate, (a)", {"exact": rising}, HOLDS),
        ("every rate, (a)", {"exact": rising, "rates": {"low_rate": negative}}, FAILS),
        ("every rate", {"exact": rising}, HOLDS),
        ("every rate", {"exact": rising, "rates": {"low_rate": narrow}}, FAILS),
        ("every rate", {"exact": rising, "rates": {"low_rate": lambda width, done: 1 + 0 * done}}, OPEN),
    ],
)
def test_the_estimate_beside_the_exact(tmp_path: Path, name: str, laws: dict[str, Any], expected: Outcome) -> None:
    assert verdict(convex_fig1_exact.STUDY, name, beside_the_exact(tmp_path, **laws)) is expected


def test_equal_loss_is_not_equal_epoch(tmp_path: Path) -> None:
    """The wider network is ahead in training, at one value for each loss: only the epochs tell them apart."""
    ahead: dict[str, Any] = {
        "loss": lambda width, done: 4 - done * width,
        "exact": lambda width, done: 1 + done * width,
    }
    runs = beside_the_exact(tmp_path, **ahead)
    assert verdict(convex_fig1_exact.STUDY, "exact: wider is larger, g'Hg", runs) is HOLDS
    assert verdict(convex_fig1_exact.STUDY, "equal loss", runs) is not HOLDS


def turning(width: float, done: np.ndarray) -> np.ndarray:
    """Larger in wider networks until the middle of training, and smaller from there on."""
    return np.where(done < 0.5, width, 1 / width)


def test_an_order_of_widths_that_turns_over_is_told_by_quarters(tmp_path: Path) -> None:
    jobs: list[Job] = [
        ({"width": width, "seed": seed}, {"metrics": metrics(width, seed, estimate=turning)})
        for width in (1.0, 2.0, 4.0)
        for seed in range(3)
    ]
    runs = Runs(fake_sweep(tmp_path, "convex_fig1_cifar100", jobs))
    (claim,) = (one for one in convex_fig1_cifar100.STUDY.claims if one.name == "wider is larger, g'Hg")
    assert "(1, 1, 0, 0 in the quarters of training)" in judged(claim, runs).measured


def test_a_diverged_run_is_not_in_the_way(tmp_path: Path) -> None:
    """Its last row holds no numbers; what it measured before counts."""
    rows = metrics(1.0, 0)
    rows.loc[3, ["grad_norm", "fd_gHg", "split_gHg", "train_loss"]] = [np.inf, np.nan, np.nan, np.inf]
    jobs: list[Job] = [({"width": 1.0}, {"metrics": rows[:4]}), ({"width": 2.0}, {"metrics": metrics(2.0, 0)})]
    runs = Runs(fake_sweep(tmp_path / "sweep", "convex_fig1_cifar100", jobs))
    (tmp_path / "sweep" / "run0" / "status.json").write_text('{"status": "diverged"}')
    assert "1 (n = 1) at width 1" in judged(convex_fig1_cifar100.STUDY.claims[0], runs).measured
    assert share_of_wider(in_forms(runs.metrics, ESTIMATE), "per_gg", "loss").n <= 1
    assert "1 of 2 runs diverged" in convex_fig1_cifar100.STUDY.remark(runs)


def test_pictures_and_remarks(tmp_path: Path) -> None:
    for study, runs in (
        (convex_fig1_cifar100.STUDY, figure1(tmp_path / "a")),
        (convex_fig1_exact.STUDY, beside_the_exact(tmp_path / "b", estimate=flat, exact=negative)),
    ):
        for plot in study.plots:
            figure = plot.draw(runs)
            assert figure.axes
            figure.canvas.draw()
            plt.close(figure)
        assert "(a)" in study.remark(runs)


def test_the_remark_tells_how_curvature_goes_with_the_rate(tmp_path: Path) -> None:
    """An estimate at 0.95 of its decorrelation level, and an exact value that the halvings do not move."""
    said = convex_fig1_cifar100.STUDY.remark(figure1(tmp_path, estimate=flat, exact=lambda width, done: 10 + 0 * done))
    numbers = re.search(r"quarters of training: (.*) for the estimate; (.*) for the exact", said)
    assert numbers is not None
    estimate, exact = ([float(one) for one in part.split(", ")] for part in numbers.groups())
    assert estimate == pytest.approx([0.95] * 4, rel=0.03)
    assert exact == pytest.approx([1, 0.5, 0.25, 0.125], rel=0.05)


def test_the_paragraph_counts_what_the_estimate_hides(tmp_path: Path) -> None:
    said = convex_fig1_exact.in_plain_words(beside_the_exact(tmp_path, estimate=flat, exact=negative))
    assert "negative at 0% of the steps, the exact g'Hg at 100%" in said
    assert "at 126 of 126 measured steps" in said
