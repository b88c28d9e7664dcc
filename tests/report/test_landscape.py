"""Verdicts on Cooper's theorem, both ways, and its figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake import Job, fake_sweep

from runner.report.statistics import Outcome
from runner.report.study import Runs, judged, study
from runner.report.style import image, theme

WEIGHTS = 40


def minimum(
    samples: int,
    positive: int,
    negative: int = 0,
    outputs: int = 1,
    loss: float = 1e-30,
    rest: float = 0,
    loss_fn: str = "runner.loss.MSE",
) -> Job:
    """A run that ended where the Hessian has so many eigenvalues of each sign, the others of the size `rest`."""
    values = {
        "dataset.size": samples,
        "dataset.classes": max(2, outputs),
        "arch.outputs": outputs,
        "arch.base_width": 4,
        "arch.activation": "tanh",
        "loss._target_": loss_fn,
        "arch.depth": 2 + samples % 2,
    }
    zero = WEIGHTS - positive - negative
    sizes = np.concatenate([-np.ones(negative), np.full(zero, rest), np.linspace(1, 2, positive)])
    hessian = pd.DataFrame({"step": 9, "matrix": "H", "index": range(WEIGHTS), "value": sizes})
    counts = {"hessian_H_positive": positive, "hessian_H_zero": zero, "hessian_H_negative": negative}
    metrics = pd.DataFrame([{"step": 0, "train_loss": 1.0}, {"step": 9, "train_loss": loss, **counts}])
    return values, {"metrics": metrics, "hessian": hessian}


def outcomes(folder: Path, experiment: str, jobs: list[Job]) -> dict[str, Outcome]:
    runs = Runs(fake_sweep(folder, experiment, jobs))
    return {claim.name: judged(claim, runs).outcome for claim in study(experiment).claims}


def as_the_theorem(*samples: int) -> list[Job]:
    single = [minimum(d, d, rest=1e-16) for d in samples]
    return [*single, *(minimum(d, 3 * d, outputs=3, rest=1e-16) for d in samples)]


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        (as_the_theorem(4, 5, 6, 7, 8), ("holds", "holds", "holds", "holds")),
        (
            [minimum(d, d - 2, 1, rest=1e-10) for d in range(5, 11)],
            ("does not hold", None, "does not hold", "does not hold"),
        ),
        ([minimum(6, 10, outputs=3, rest=1e-16) for _ in range(6)], (None, "does not hold", "holds", "holds")),
        (as_the_theorem(4, 5), (None, None, None, None)),  # too few
        ([minimum(d, 3, 2, loss=1e-3) for d in range(4, 10)], (None, None, None, None)),  # no minima without loss
    ],
)
def test_the_count_is_judged_both_ways(jobs: list[Job], found: tuple[str | None, ...], tmp_path: Path) -> None:
    names = ("one output", "several outputs", "none negative", "a gap")
    expected = {name: Outcome(one or "undecided at this scale") for name, one in zip(names, found, strict=True)}
    if jobs and len(jobs) == 4:
        expected["none negative"] = expected["a gap"] = Outcome.UNDECIDED
    assert outcomes(tmp_path, "landscape_count", jobs) == expected


def test_the_remark_tells_what_is_not_judged_and_why_one_hot_labels_have_fewer(tmp_path: Path) -> None:
    jobs = [minimum(4, 4), minimum(4, 2, loss=1e-3), minimum(6, 12 + 5, outputs=3)]  # 4 units and a bias in the head
    said = study("landscape_count").remark(Runs(fake_sweep(tmp_path, "landscape_count", jobs)))
    assert "1 of 3 runs (1 tanh) stopped above a loss" in said
    assert "Minima with fewer positive eigenvalues: 1, of which 1 with exactly" in said


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ((1e-27, 1e-26), ("holds", "holds")),
        ((1e-27, 1e-15), ("holds", "undecided at this scale")),
        ((1e-27, 0.1), ("holds", "does not hold")),
        ((float("nan"), 1e-27), ("does not hold", "holds")),
    ],
)
def test_the_construction_is_judged_both_ways(
    losses: tuple[float, float], found: tuple[str, str], tmp_path: Path
) -> None:
    """Runs of two weight layers (an even number of samples) and of three."""
    jobs = [minimum(d, d, loss=losses[d % 2], rest=1e-16) for d in (4, 5, 6, 7)]
    about = outcomes(tmp_path, "landscape_lemma", jobs)
    assert (about["one hidden layer fits"], about["deeper networks fit"]) == tuple(map(Outcome, found))


@pytest.mark.parametrize(("fewer", "found"), [(0, "holds"), (2, "does not hold")])
def test_the_count_at_the_construction_is_judged_both_ways(fewer: int, found: str, tmp_path: Path) -> None:
    jobs = [minimum(d, d - fewer, rest=1e-16) for d in range(4, 10)]
    assert outcomes(tmp_path, "landscape_lemma", jobs)["the count there"] is Outcome(found)


@pytest.mark.parametrize("experiment", ["landscape_count_conv", "landscape_count_rnn"])
def test_those_of_one_output_are_judged_alike(experiment: str, tmp_path: Path) -> None:
    jobs = [minimum(d, d, rest=1e-16) for d in range(4, 10)]
    found = outcomes(tmp_path, experiment, jobs)
    assert set(found) == {"one output", "none negative", "a gap"}
    assert set(found.values()) == {Outcome.HOLDS}


@pytest.mark.parametrize(("free", "found"), [(2, "holds"), (3, "does not hold")])
def test_softmax_outputs_have_one_free_residual_fewer(free: int, found: str, tmp_path: Path) -> None:
    jobs = [minimum(d, free * d, outputs=3, rest=1e-16, loss_fn="runner.loss.Brier") for d in range(4, 10)]
    about = outcomes(tmp_path, "landscape_count_softmax", jobs)
    assert about["softmax outputs"] is Outcome(found)
    assert about["a gap"] is Outcome.HOLDS


@pytest.mark.parametrize("experiment", [f"landscape_{name}" for name in ("count", "count_conv", "count_rnn", "lemma")])
def test_the_figures_are_drawn(experiment: str, tmp_path: Path) -> None:
    runs = Runs(fake_sweep(tmp_path, experiment, [*as_the_theorem(4, 5), minimum(4, 2, loss=1e-3)]))
    with theme("dark"):
        for plot in study(experiment).plots:
            assert image(plot.draw(runs), "png")
