"""The verdicts on curvature-driven rates, on tables made by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake import Job, fake_sweep

from runner.report.rates import COST, DRIVEN, at_cost, best_of, finals, rival
from runner.report.statistics import Outcome
from runner.report.studies import convex_rate_cifar100, convex_rate_gaussian, convex_rate_mnist
from runner.report.study import Claim, Runs, judged

STEPS = 100
SEARCHED = ("step", "relaxed", "target")
CLAIMS = {claim.name: claim for claim in convex_rate_gaussian.STUDY.claims}
TARGETS = {"constant": "schedule.Constant", "halving": "schedule.Halving", "cosine": "schedule.Cosine"}
Losses = Callable[[str, float, float, int], float]


def job(arm: str, initial: float, width: float, seed: int, loss: float) -> Job:
    values: dict[str, object] = {"width": width, "seed": seed, "optimizer.lr": initial}
    values["schedule._target_"] = f"runner.{TARGETS.get(arm, 'schedule_curvature.Curvature')}"
    if arm not in TARGETS:
        values |= {"schedule.every": 10, "schedule.mode": "target" if arm == "target curvature" else "step"}
        values["schedule.damping"] = 1.5 if arm == "relaxed curvature" else 1.0
    steps = np.arange(STEPS + 1)
    last = np.log10(loss) if np.isfinite(loss) else 0.0
    frame = pd.DataFrame({"step": steps, "lr": initial, "train_loss": 10 ** (last * np.minimum(1, steps / 70))})
    return values, {"metrics": frame}


def sweep(folder: Path, losses: Losses, seeds: int = 3) -> Runs:
    """Every arm from two initial rates at two widths; `losses(arm, initial, width, seed)` is what it ends with."""
    arms = (*TARGETS, *DRIVEN)
    settings = [(a, i, w, s) for a in arms for i in (0.1, 1.0) for w in (1.0, 4.0) for s in range(seeds)]
    return Runs(fake_sweep(folder, "convex_rate_gaussian", [job(*one, losses(*one)) for one in settings]))


def spread(final: Mapping[str, float]) -> Losses:
    """These losses, which differ between seeds, and less within one; ten times worse from the smaller rate, where it is
    planned."""

    def losses(arm: str, initial: float, width: float, seed: int) -> float:
        planned = 10 if arm in TARGETS and initial < 1 else 1
        return final.get(arm, final["constant"]) * planned * 2.0**seed * (1 + 0.01 * np.sin(seed + len(arm)))

    return losses


def verdict(claim: str, runs: Runs) -> Outcome:
    return judged(CLAIMS[claim], runs).outcome


@pytest.mark.parametrize(
    ("claim", "arm"), list(zip(("suggested step", "relaxed step", "held curvature"), DRIVEN, strict=True))
)
def test_lower_loss_comes_out_either_way(tmp_path: Path, claim: str, arm: str) -> None:
    better = sweep(tmp_path / "a", spread({"constant": 1e-2, arm: 5e-3}))
    worse = sweep(tmp_path / "b", spread({"constant": 1e-2, arm: 2e-2}))
    assert verdict(claim, better) is Outcome.HOLDS
    assert verdict(claim, worse) is Outcome.FAILS
    assert "against constant from 1" in judged(CLAIMS[claim], worse).measured


def test_lower_loss_is_open_where_seeds_disagree(tmp_path: Path) -> None:
    def losses(arm: str, initial: float, width: float, seed: int) -> float:
        return 1e-2 * (3.0 ** (seed - 1) if arm == "curvature" else 1)

    assert verdict("suggested step", sweep(tmp_path, losses)) is Outcome.UNDECIDED


def test_it_has_to_be_lower_at_every_width(tmp_path: Path) -> None:
    better, worse = spread({"constant": 1e-2, "curvature": 5e-3}), spread({"constant": 1e-2, "curvature": 2e-2})
    runs = sweep(tmp_path, lambda *one: (better if one[2] == 1 else worse)(*one))
    assert verdict("suggested step", runs) is Outcome.FAILS


def test_the_best_rival_counts(tmp_path: Path) -> None:
    runs = sweep(tmp_path, spread({"constant": 1e-2, "cosine": 1e-3, "curvature": 5e-3}))
    assert rival(finals(at_cost(runs)), 1.0).name == "cosine from 1, the greatest tried"
    assert verdict("suggested step", runs) is Outcome.FAILS


@pytest.mark.parametrize(
    ("claim", "arm"), [(f"{name} needs no search", arm) for name, arm in zip(SEARCHED, DRIVEN, strict=True)]
)
def test_needs_no_search_comes_out_either_way(tmp_path: Path, claim: str, arm: str) -> None:
    near = sweep(tmp_path / "a", spread({"constant": 1e-2, arm: 1.2e-2}))
    far = sweep(tmp_path / "b", spread({"constant": 1e-2, arm: 1e-1}))

    def from_one_only(which: str, initial: float, width: float, seed: int) -> float:
        return spread({"constant": 1e-2, arm: 1e-3})(which, initial, width, seed) * (100 if initial < 1 else 1)

    assert verdict(claim, near) is Outcome.HOLDS
    assert verdict(claim, far) is Outcome.FAILS
    assert verdict(claim, sweep(tmp_path / "c", from_one_only)) is Outcome.FAILS


def test_a_schedule_that_loses_from_everywhere_is_told_from_one_that_hangs_on_its_initial_rate(tmp_path: Path) -> None:
    runs = sweep(tmp_path, spread({"constant": 1e-2, "curvature": 1e-1}))
    found = judged(CLAIMS["step needs no search"], runs)
    assert found.outcome is Outcome.FAILS
    assert "lie apart: 0 decades at width 1 (a constant rate: 1)" in found.measured


def test_a_run_that_diverged_is_infinitely_worse(tmp_path: Path) -> None:
    runs = sweep(tmp_path, lambda arm, i, w, s: np.inf if arm == "curvature" else 1e-2)
    for path in tmp_path.rglob("meta.json"):
        if '"damping": 1.0' in path.read_text() and '"mode": "step"' in path.read_text():
            status = path.with_name("status.json")
            status.write_text(status.read_text().replace("finished", "diverged"))
    assert verdict("suggested step", runs) is Outcome.FAILS
    assert verdict("step needs no search", runs) is Outcome.FAILS
    assert verdict("relaxed step", runs) is Outcome.UNDECIDED
    assert np.isinf(finals(at_cost(runs)).query("arm == 'curvature'")["loss"]).all()


def test_the_others_are_told_beside_those_that_diverged(tmp_path: Path) -> None:
    runs = sweep(tmp_path, spread({"constant": 1e-2, "curvature": 1e-1}))
    for path in tmp_path.rglob("meta.json"):
        if all(one in path.read_text() for one in ('"damping": 1.0', '"mode": "step"', '"seed": 0')):
            status = path.with_name("status.json")
            status.write_text(status.read_text().replace("finished", "diverged"))
    found = judged(CLAIMS["suggested step"], runs)
    assert found.outcome is Outcome.FAILS
    assert "inf (1 of 3 diverged; of the others 0.997 [" in found.measured


def test_measurements_are_paid_for(tmp_path: Path) -> None:
    rows = at_cost(sweep(tmp_path, spread({"constant": 1e-2})))
    assert rows["cost"].max() == STEPS
    own = rows[rows["arm"] == "curvature"]
    assert own.loc[own["step"] == 0, "cost"].iloc[0] == COST
    assert own["step"].max() == STEPS - 15  # nine measurements, of 5/3 steps each
    assert set(best_of(finals(rows)).query("arm == 'constant'")["initial"]) == {1.0}


@pytest.mark.parametrize("module", [convex_rate_gaussian, convex_rate_mnist, convex_rate_cifar100])
def test_plots_are_drawn(tmp_path: Path, module: object) -> None:
    runs = sweep(tmp_path, spread({"constant": 1e-2, "halving": np.inf}))
    for plot in module.STUDY.plots:  # type: ignore[attr-defined]
        figure = plot.draw(runs)
        assert figure.axes
        plt.close(figure)
    assert module.STUDY.remark(runs) == ""  # type: ignore[attr-defined]


def test_what_lacks_the_arms_is_left_open(tmp_path: Path) -> None:
    runs = Runs(fake_sweep(tmp_path, "convex_rate_gaussian", [job("constant", 1.0, 1.0, 0, 0.1)]))
    claims: tuple[Claim, ...] = convex_rate_gaussian.STUDY.claims
    assert {judged(claim, runs).outcome for claim in claims} == {Outcome.UNDECIDED}
