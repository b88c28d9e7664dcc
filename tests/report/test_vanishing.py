"""Verdicts on vanishing gradients and curvature, both ways, and their figures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake import Job, fake_sweep

from runner.report.statistics import Outcome
from runner.report.study import Runs, judged, study
from runner.report.style import image, theme
from runner.report.vanishing import cells, living, rates, starts

HE, XAVIER = 2**0.5, 1.0
REPLICAS = 24
Rate = Callable[[int, float], float]  # change of the mean log per layer, from units and gain


def outcomes(folder: Path, experiment: str, jobs: list[Job]) -> dict[str, Outcome]:
    runs = Runs(fake_sweep(folder, experiment, jobs))
    return {claim.name: judged(claim, runs).outcome for claim in study(experiment).claims}


def at_start(logs: np.ndarray) -> pd.DataFrame:
    """metrics.csv of replicas whose gradients have these logs, and whose curvature and norm have twice them."""
    size = np.exp(logs)
    table = {"step": 0, "replica": range(len(logs)), "train_loss": 0.25, "grad_norm": size}
    ends = {"spectrum_largest": size**2 / 2, "spectrum_smallest": -(size**2)}
    return pd.DataFrame({**table, **ends, "trace_H_frobenius": 2 * size**2})


def grid(rate: Rate, noise: float = 0.3) -> list[Job]:
    jobs: list[Job] = []
    generator = np.random.default_rng(0)
    for gain in (HE, XAVIER):
        for width in (1, 2, 4):
            for depth in (4, 8, 16):
                spread = noise * np.sqrt(depth / width)
                logs = rate(4 * width, gain) * depth + np.log(depth) / 2 + spread * generator.standard_normal(REPLICAS)
                values = {"arch.depth": depth, "arch.base_width": 4, "width": width, "init.gain": gain}
                jobs.append((values, {"metrics": at_start(logs)}))
    return jobs


def as_the_paper(units: int, gain: float) -> float:
    return -5 / (4 * units) * 4 - (0.7 if gain == XAVIER else 0)


@pytest.mark.parametrize(
    ("rate", "noise", "found"),
    [
        (as_the_paper, 0.6, ("holds", "holds", "holds", "does not hold", "holds")),
        (lambda units, gain: -1.0, 0.1, ("holds", "does not hold", "does not hold", "does not hold", "does not hold")),
        (
            lambda units, gain: 0.5,
            0.1,
            ("does not hold", "does not hold", *["undecided at this scale"] * 2, "does not hold"),
        ),
        (lambda units, gain: -4 / units, 0.1, ("holds", "holds", "holds", "holds", "does not hold")),
    ],
)
def test_depth_and_width_are_judged_both_ways(rate: Rate, noise: float, found: tuple[str, ...], tmp_path: Path) -> None:
    about = outcomes(tmp_path, "vanishing_depth_width", grid(rate, noise))
    assert list(about.values()) == list(map(Outcome, found))


def test_dead_networks_count_in_medians_and_not_in_rates(tmp_path: Path) -> None:
    metrics = {depth: at_start(np.full(6, -0.5 * depth)) for depth in (2, 4, 8)}
    metrics[8].loc[:3, ["grad_norm", "spectrum_largest", "spectrum_smallest"]] = 0.0
    jobs: list[Job] = [
        ({"arch.depth": depth, "arch.base_width": 4}, {"metrics": table}) for depth, table in metrics.items()
    ]
    rows = starts(Runs(fake_sweep(tmp_path, "vanishing_depth_width", jobs)))
    per_layer = -0.5 - 9 / 56 * np.log(2)  # least squares by hand: ln sqrt(depth) rises so much a layer over 2, 4, 8
    assert rates(rows, "gradient").to_numpy() == pytest.approx([per_layer, per_layer])  # of those alive thrice
    assert len(living(rows)) == 14
    table = cells(rows, "depth").set_index("depth")
    assert table.loc[8, "gradient_median"] == 0
    assert table.loc[8, "gradient_typical"] == pytest.approx(np.exp(-4))
    assert table.loc[8, "dead"] == pytest.approx(4 / 6)


def kinds(changes: tuple[float, float, float], replicas: int = REPLICAS) -> list[Job]:
    """Plain, residual and batch norm networks whose log gradients change so much from depth 4 to depth 8."""
    jobs: list[Job] = []
    generator = np.random.default_rng(0)
    layers = pd.DataFrame({"step": 0, "layer": ["body.0", "body.1", "head"], "depth": range(3), "gradient": [1, 2, 3]})
    for (residual, norm), change in zip([(False, "none"), (True, "none"), (False, "batch")], changes, strict=True):
        for depth in (4, 8):
            logs = change * (depth == 8) + 0.1 * generator.standard_normal(replicas)
            values = {"arch.depth": depth, "arch.base_width": 8, "arch.residual": residual, "arch.norm": norm}
            jobs.append((values, {"metrics": at_start(logs), "layer_norms": layers}))
    return jobs


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ((-3.0, 0.0, 3.0), ("holds", "holds", "holds")),
        ((0.0, -3.0, 0.0), ("does not hold", "does not hold", "does not hold")),
        ((-np.log(2), np.log(2) / 2, np.log(2)), ("undecided at this scale",) * 3),
    ],
)
def test_residual_and_norm_are_judged_both_ways(
    changes: tuple[float, float, float], found: tuple[str, ...], tmp_path: Path
) -> None:
    about = outcomes(tmp_path, "vanishing_residual_norm", kinds(changes))
    if found[0].startswith("undecided"):  # the gradient's bounds are met, the curvature's are not
        assert about["plain vanishes"] is not Outcome.FAILS
        assert about["residual stays"] is not Outcome.HOLDS
    else:
        assert list(about.values()) == list(map(Outcome, found))


def walk(optimizer: str, rate: float, depth: int, leaves: np.ndarray) -> Job:
    """Networks that leave the plateau at these steps (inf: never), each of less curvature at the start than the one
    before; deeper ones have less too."""
    steps = np.arange(0, 101, 5)
    tables = []
    for replica, at in enumerate(leaves):
        loss = np.where(steps < at, 2.3, 0.2)
        start = {
            "spectrum_largest": [(4.0 - replica / 10) / depth, *[np.nan] * 20],
            "spectrum_smallest": [0.0, *[np.nan] * 20],
        }
        tables.append(pd.DataFrame({"step": steps, "replica": replica, "train_loss": loss, "grad_norm": 0.1, **start}))
    values = {
        "arch.depth": depth,
        "arch.base_width": 16,
        "optimizer._target_": f"torch.optim.{optimizer}",
        "optimizer.lr": rate,
    }
    return values, {"metrics": pd.concat(tables)}


def walks(sgd: float, adam: float, order: tuple[float, ...] = (10, 30), spread: float = 20) -> list[Job]:
    """The deepest networks leave at these steps; SGD's shallower ones in this order. `spread`: how much later SGD's
    networks of least curvature leave."""
    jobs = [walk("Adam", rate, depth, np.full(10, adam)) for rate in (0.001, 0.1) for depth in (4, 8, 16)]
    for depth, at in zip((4, 8, 16), (*order, sgd), strict=True):
        jobs.append(walk("SGD", 0.1, depth, np.full(10, at) + np.linspace(0, spread, 10)))
        jobs.append(walk("SGD", 0.001, depth, np.full(10, np.inf)))
    return jobs


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        (walks(np.inf, 20), ("holds", "holds")),
        (walks(35, 20, (30, 40), -20), ("does not hold", "does not hold")),
        (walks(np.inf, np.inf, (np.inf, np.inf)), ("does not hold", "undecided at this scale")),
    ],
)
def test_leaving_is_judged_both_ways(jobs: list[Job], found: tuple[str, str], tmp_path: Path) -> None:
    assert list(outcomes(tmp_path, "vanishing_escape", jobs).values()) == list(map(Outcome, found))


def test_few_networks_leave_it_open(tmp_path: Path) -> None:
    jobs = [walk("SGD", 0.1, 16, np.array([np.inf, np.inf])), walk("Adam", 0.1, 16, np.array([20.0, 20.0]))]
    assert outcomes(tmp_path, "vanishing_escape", jobs)["SGD stays, Adam leaves"] is Outcome.UNDECIDED


def test_the_median_curve_does_not_jump_where_one_network_diverges(tmp_path: Path) -> None:
    values, tables = walk("SGD", 0.1, 16, np.full(9, np.inf))
    rows = tables["metrics"]
    last = rows[(rows["replica"] == 0) & (rows["step"] == 0)].assign(step=33, train_loss=50.0)
    kept = rows[(rows["replica"] > 0) | (rows["step"] < 33)]
    runs = Runs(fake_sweep(tmp_path, "vanishing_escape", [(values, {"metrics": pd.concat([kept, last])})]))
    (axis,) = next(plot for plot in study("vanishing_escape").plots if plot.name == "loss").draw(runs).axes
    (median,) = [line for line in axis.lines if line.get_label().startswith("SGD")]
    assert median.get_xdata()[-1] == 100
    assert median.get_ydata().max() < 1.1


def test_a_best_rate_at_the_edge_is_said(tmp_path: Path) -> None:
    runs = Runs(fake_sweep(tmp_path, "vanishing_escape", walks(np.inf, 20)))
    text = judged(study("vanishing_escape").claims[0], runs).measured
    assert "SGD 0 [0, 0.278] at every rate from 0.001 to 0.1" in text
    assert "at its best rate 0.001, the least tried" in text


@pytest.mark.parametrize(
    ("experiment", "jobs"),
    [
        ("vanishing_depth_width", grid(as_the_paper)),
        ("vanishing_residual_norm", kinds((-3.0, 0.0, 3.0))),
        ("vanishing_escape", walks(np.inf, 20)),
    ],
)
def test_the_figures_are_drawn(experiment: str, jobs: list[Job], tmp_path: Path) -> None:
    runs = Runs(fake_sweep(tmp_path, experiment, jobs))
    assert isinstance(study(experiment).remark(runs), str)
    with theme("dark"):
        for plot in study(experiment).plots:
            assert image(plot.draw(runs), "png")
