"""The verdicts of the studies of Sagun, Bottou, LeCun, either way, on sweeps made by hand."""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake import Job, fake_sweep

import runner
from runner.errors import BadInput
from runner.report.image_spectra import kept_hessian
from runner.report.lines import COLUMNS, TABLE, lines
from runner.report.statistics import Outcome
from runner.report.study import Runs, judged, study
from runner.report.style import theme

Sweep = Iterable[Job]
STARTS = 20
SPHERE = {"init": {"_target_": "runner.init.Sphere"}}
NORMAL = {"init": {"_target_": "runner.init.Independent"}}


def spectrum(
    size: int = 40, top: Iterable[float] = (7.0, 6.0), bulk: float = 0.01, negative: float = -0.2, negatives: int = 1
) -> list[float]:
    """So many eigenvalues: those at the top, negative ones, and the rest evenly in +-`bulk`."""
    large = list(top)
    rest = size - len(large) - negatives
    return [*large, *[negative] * negatives, *np.linspace(-bulk, bulk, rest)]


def job(config: Mapping[str, Any], spectra: Iterable[list[float]], loss: float = 1e-5, grad_norm: float = 9e-5) -> Job:
    """A run with a replica for each spectrum, which fluctuates a little, at its first and its last step."""
    metrics, hessian = [], []
    for replica, values in enumerate(spectra):
        scale = 1 + 0.01 * np.sin(replica)
        for step, factor in ((0, 100.0), (50, scale)):
            metrics.append({"step": step, "replica": replica, "train_loss": loss, "grad_norm": grad_norm})
            ordered = np.sort(values)
            hessian += [
                {"step": step, "replica": replica, "matrix": "H", "index": i, "value": factor * one, "on": "batch"}
                for i, one in enumerate(ordered)
            ]
    config = {"until": {"grad_norm": 1e-4}, "dataset": {"std": 0.3}, **SPHERE, **config}
    return config, {"metrics": pd.DataFrame(metrics), "hessian": pd.DataFrame(hessian)}


def same(config: Mapping[str, Any], **options: Any) -> Job:
    return job(config, [spectrum(**options)] * STARTS)


def one_size(**options: Any) -> list[Job]:
    return [same(SPHERE, **options), same(NORMAL, **options)]


def sizes(bulks: Iterable[float] = (0.2, 0.1, 0.05), **options: Any) -> list[Job]:
    """Networks of 20, 40 and 80 parameters."""
    return [
        same({"width": float(width)}, size=10 * width, bulk=bulk, **options)
        for width, bulk in zip((2, 4, 8), bulks, strict=True)
    ]


def moved(factor: float) -> list[Job]:
    return [same({"width": 2.0}), same({"width": 4.0}, top=(7 * factor, 6 * factor), size=80)]


def larger(factor: float) -> Job:
    return same({"width": 8.0}, top=(7 * factor, 6 * factor), size=120)


def scattered(low: float, high: float, **options: Any) -> list[Job]:
    """Starts whose largest eigenvalue lies anywhere between."""
    return [job({}, [spectrum(top=(one, 6.0), **options) for one in np.linspace(low, high, STARTS)])]


def harder(tops: Iterable[float]) -> list[Job]:
    stds = (0.1, 0.3, 0.5)
    return [same({"dataset": {"std": std}}, top=(top, 0.9 * top)) for std, top in zip(stds, tops, strict=True)]


def images(larges: Iterable[int], bulk: float = 0.01) -> list[Job]:
    """Networks of 100, 200 and 400 parameters with so many large eigenvalues, four seeds of each."""
    found = []
    for width, large in zip((1, 2, 4), larges, strict=True):
        for seed in range(4):
            several = large + seed % (1 + width)
            values = spectrum(100 * width, np.linspace(5, 9, several), bulk, negatives=1)
            found.append(job({"width": float(width), "seed": seed}, [values], grad_norm=0.1))
    return found


CASES: list[tuple[str, str, Sweep, Outcome]] = [
    ("singularity_fig3", "two isolated", one_size(), Outcome.HOLDS),
    ("singularity_fig3", "two isolated", one_size(top=(7.0, 6.0, 5.0)), Outcome.FAILS),
    ("singularity_fig3", "two isolated", one_size(top=(7.0,)), Outcome.FAILS),
    ("singularity_fig3", "two isolated", [job(SPHERE, [spectrum()] * 2)], Outcome.UNDECIDED),
    ("singularity_fig3", "rest near zero", one_size(), Outcome.HOLDS),
    ("singularity_fig3", "rest near zero", one_size(bulk=2.0), Outcome.FAILS),
    ("singularity_fig3", "few negative", one_size(), Outcome.HOLDS),
    ("singularity_fig3", "few negative", one_size(negatives=0), Outcome.FAILS),
    ("singularity_fig3", "few negative", one_size(negatives=10), Outcome.FAILS),
    ("singularity_fig3", "few negative", one_size(negative=-3.0), Outcome.FAILS),
    ("singularity_fig4", "nearly of rank two", sizes(), Outcome.HOLDS),
    ("singularity_fig4", "nearly of rank two", sizes(top=[6.0] * 8), Outcome.FAILS),
    ("singularity_fig4", "sparse", sizes(), Outcome.UNDECIDED),  # no matrices were kept
    ("singularity_fig5", "number stays", sizes(), Outcome.HOLDS),
    ("singularity_fig5", "number stays", sizes(top=(9.0, 9.0, 9.0)), Outcome.FAILS),
    ("singularity_fig5", "place stays", moved(1.1), Outcome.HOLDS),
    ("singularity_fig5", "place stays", moved(5.0), Outcome.FAILS),
    ("singularity_fig5", "place stays", [*moved(5.0), larger(5.0)], Outcome.UNDECIDED),  # the smallest alone is apart
    ("singularity_fig5", "place stays", [*moved(5.0), larger(25.0)], Outcome.FAILS),
    ("singularity_fig5", "bulk sharpens", sizes(), Outcome.HOLDS),
    ("singularity_fig5", "bulk sharpens", sizes((0.05, 0.1, 0.2)), Outcome.FAILS),
    ("singularity_fig5", "few negative", sizes((0.05, 0.05, 0.05)), Outcome.HOLDS),
    ("singularity_fig5", "few negative", sizes((0.05, 0.05, 0.05), negatives=9), Outcome.FAILS),
    ("singularity_fig6", "narrow", scattered(6.5, 7.5), Outcome.HOLDS),
    ("singularity_fig6", "narrow", scattered(6.5, 65.0), Outcome.FAILS),
    ("singularity_fig6", "narrow", scattered(6.0, 12.0), Outcome.UNDECIDED),
    ("singularity_fig6", "two isolated", scattered(6.5, 7.5), Outcome.HOLDS),
    ("singularity_fig6", "two isolated", scattered(65.0, 75.0), Outcome.FAILS),
    ("singularity_fig6", "apart from the bulk", scattered(6.5, 7.5), Outcome.HOLDS),
    ("singularity_fig6", "apart from the bulk", scattered(6.5, 7.5, bulk=6.0), Outcome.FAILS),
    ("singularity_fig7", "grow", harder((1.0, 2.0, 4.0)), Outcome.HOLDS),
    ("singularity_fig7", "grow", harder((4.0, 2.0, 1.0)), Outcome.FAILS),
    ("singularity_fig7", "beyond the fluctuation", harder((1.0, 2.0, 4.0)), Outcome.HOLDS),
    ("singularity_fig7", "beyond the fluctuation", harder((1.0, 0.9, 4.0)), Outcome.FAILS),
]
for figure in ("singularity_fig1", "singularity_fig2"):
    CASES += [
        (figure, "bulk at zero", images((5, 5, 5)), Outcome.HOLDS),
        (figure, "bulk at zero", images((5, 5, 5), bulk=3.0), Outcome.FAILS),
        (figure, "edges do not grow", images((5, 5, 5)), Outcome.HOLDS),
        (figure, "edges do not grow", images((5, 10, 20)), Outcome.FAILS),
        (figure, "bulk grows", images((5, 5, 5)), Outcome.HOLDS),
        (figure, "bulk grows", images((5, 20, 80)), Outcome.FAILS),
    ]


@pytest.mark.parametrize(
    ("name", "claim", "jobs", "outcome"), CASES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_a_verdict_comes_out_either_way(name: str, claim: str, jobs: Sweep, outcome: Outcome, tmp_path: Path) -> None:
    runs = Runs(fake_sweep(tmp_path, name, jobs))
    (chosen,) = (one for one in study(name).claims if one.name == claim)
    found = judged(chosen, runs)
    assert found.outcome == outcome, found.measured


PLOTTED: dict[str, Callable[[], list[Job]]] = {
    "singularity_fig3": one_size,
    "singularity_fig5": sizes,
    "singularity_fig6": lambda: scattered(6.5, 7.5),
    "singularity_fig7": lambda: harder((1.0, 2.0, 4.0)),
}


@pytest.mark.parametrize("name", PLOTTED)
def test_spectra_are_drawn(name: str, tmp_path: Path) -> None:
    draw_all(name, Runs(fake_sweep(tmp_path, name, PLOTTED[name]())))


def draw_all(name: str, runs: Runs) -> None:
    about = study(name)
    about.remark(runs)
    with theme("dark"):
        for plot in about.plots:
            figure = plot.draw(runs)
            figure.canvas.draw()
            plt.close(figure)


@pytest.mark.parametrize("name", ["singularity_fig1", "singularity_fig2"])
def test_images_spectra_are_drawn_with_a_matrix_larger_than_the_picture(name: str, tmp_path: Path) -> None:
    runs = Runs(fake_sweep(tmp_path, name, images((5, 5, 5))))
    for step in ("first", "last"):
        np.save(tmp_path / f"run0-H-{step}.npy", np.outer(*[np.linspace(-1, 1, 500)] * 2))
    draw_all(name, runs)


def save(folder: Path, matrix: np.ndarray, replicas: int) -> None:
    (folder / "hessian").mkdir()
    for step, replica in product((0, 50), range(replicas)):
        np.save(folder / "hessian" / f"H-step{step}-replica{replica}.npy", matrix)


@pytest.mark.parametrize(("power", "outcome"), [(0.25, Outcome.HOLDS), (1.0, Outcome.FAILS)])
def test_a_sparse_matrix_is_one_whose_entries_are_small_the_more_so_the_larger(
    power: float, outcome: Outcome, tmp_path: Path
) -> None:
    runs = Runs(fake_sweep(tmp_path, "singularity_fig4", sizes()))
    for folder, size in zip(sorted(tmp_path.glob("run*")), (20, 40, 80), strict=True):
        ones = np.zeros((size, size))
        ones[: int(4 * size**power), :] = 1
        save(folder, ones, STARTS)
    (claim,) = (one for one in study("singularity_fig4").claims if one.name == "sparse")
    found = judged(claim, runs)
    assert found.outcome == outcome, found.measured
    draw_all("singularity_fig4", runs)


def test_a_start_on_the_plateau_is_told_and_left_out(tmp_path: Path) -> None:
    stuck = job({"width": 2.0, "seed": 1}, [spectrum(top=(1.0,))] * 3, loss=float(np.log(2)), grad_norm=1e-5)
    slow = job({"width": 2.0, "seed": 2}, [spectrum(top=(1.0,))] * 2, grad_norm=1e-3)
    runs = Runs(fake_sweep(tmp_path, "singularity_fig5", [*sizes(), stuck, slow]))
    about = study("singularity_fig5")
    said = "k = 2: 20 of 25 starts converged, 3 stayed at the loss ln 2, 2 still had a larger gradient at the last step"
    assert said in about.remark(runs)
    assert judged(about.claims[0], runs).outcome == Outcome.HOLDS
    draw_all("singularity_fig5", runs)


def test_growth_among_those_that_converged_is_told_beside_that_of_all(tmp_path: Path) -> None:
    *minima, hard = harder((2.0, 2.0, 40.0))
    slow = job({"dataset": {"std": 0.5}}, [spectrum(top=(40.0, 36.0))] * STARTS, grad_norm=1e-2)
    claim = study("singularity_fig7").claims[0]
    all_converge = judged(claim, Runs(fake_sweep(tmp_path / "all", "singularity_fig7", [*minima, hard])))
    assert "converged" not in all_converge.measured
    some = judged(claim, Runs(fake_sweep(tmp_path / "some", "singularity_fig7", [*minima, slow])))
    of_all, among = some.measured.split("; over those up to σ = 0.3, where 90% of the starts converged: ")
    assert of_all == all_converge.measured.rstrip(".")
    assert abs(float(among.split()[0])) < 1e-6
    assert all_converge.outcome is Outcome.HOLDS
    assert some.outcome is Outcome.UNDECIDED


def table(barriers: Mapping[str, float], last: float = 0.1, apart: float = 1.0) -> pd.DataFrame:
    """Lines of eight starts over three steps: the loss falls from 2 to `last`, with a barrier of each kind."""
    rows = []
    for kind, barrier in barriers.items():
        for pair in range(8 if kind == "start" else 4):
            seeds = {"a": pair, "b": pair} if kind == "start" else {"a": 2 * pair, "b": 2 * pair + 1}
            for step, ends in ((0, 2.0), (10, 1.0), (100, last)):
                for alpha in (-0.25, 0.0, 0.5, 1.0, 1.25):
                    high = 2 * barrier * (1 + 0.1 * pair) if alpha == 0.5 else 0.0
                    row = {"kind": kind, **seeds, "step": step, "alpha": alpha, "train_loss": ends + high}
                    rows.append({**row, "distance": apart * step, "travelled": max(step, 1)})
    return pd.DataFrame(rows, columns=COLUMNS)


LINES: list[tuple[str, dict[str, Any], Outcome]] = [
    ("flat from one start", {"barriers": {"start": 0.01, "random": 0.5}}, Outcome.HOLDS),
    ("flat from one start", {"barriers": {"start": 0.5, "random": 0.5}}, Outcome.FAILS),
    ("flat from one start", {"barriers": {"start": 0.01, "random": 0.5}, "apart": 0.01}, Outcome.FAILS),
    ("decreases", {"barriers": {"start": 0.01, "random": 0.1}}, Outcome.HOLDS),
    ("decreases", {"barriers": {"start": 0.01, "random": 0.1}, "last": 3.0}, Outcome.FAILS),
    ("less flat from two", {"barriers": {"start": 0.01, "random": 0.5}}, Outcome.HOLDS),
    ("less flat from two", {"barriers": {"start": 0.5, "random": 0.01}}, Outcome.FAILS),
]


@pytest.mark.parametrize(("claim", "options", "outcome"), LINES)
def test_lines_between_runs_are_judged_either_way(
    claim: str, options: dict[str, Any], outcome: Outcome, tmp_path: Path
) -> None:
    runs = Runs(fake_sweep(tmp_path, "singularity_fig8", [job({}, [spectrum()])]))
    table(**options).to_csv(tmp_path / TABLE, index=False)
    (chosen,) = (one for one in study("singularity_fig8").claims if one.name == claim)
    found = judged(chosen, runs)
    assert found.outcome == outcome, found.measured


def test_lines_are_drawn_from_their_table(tmp_path: Path) -> None:
    table({"start": 0.01, "random": 0.5}).to_csv(tmp_path / TABLE, index=False)
    draw_all("singularity_fig8", Runs(tmp_path))


def test_lines_are_those_between_snapshots_and_made_anew_for_younger_ones(tmp_path: Path) -> None:
    small = ["dataset=blobs", "dataset.size=20", "steps=3", "log_every=1", "probe=[snapshot]", "device=cpu"]
    for seed, batch_size in product((0, 1), ("null", "5")):
        where = f"hydra.run.dir={tmp_path}/{seed}{batch_size}"
        runner.run([*small, f"seed={seed}", f"batch_size={batch_size}", where])
    found = lines(Runs(tmp_path))
    assert (tmp_path / TABLE).is_file()
    counts = found.groupby(["kind", "a", "b"])["step"].unique().map(list).to_dict()
    assert counts == {("start", 0, 0): [0, 3], ("start", 1, 1): [0, 3], ("random", 0, 1): [0, 3]}
    assert (found.loc[(found["kind"] == "start") & (found["step"] == 0), "distance"] == 0).all()
    end = found[(found["kind"] == "start") & (found["a"] == 0) & (found["step"] == 3) & (found["alpha"] == 0)]
    own = pd.read_csv(tmp_path / "0null" / "metrics.csv")
    assert end["train_loss"].item() == pytest.approx(own["train_loss"].iloc[-1])

    (tmp_path / TABLE).write_text("kind\n")
    os.utime(tmp_path / TABLE, (0, 0))
    assert len(lines(Runs(tmp_path))) == len(found)

    runner.run([*small, "width=2", f"hydra.run.dir={tmp_path}/wide"])
    with pytest.raises(BadInput, match=r"should hold one run of each seed with the full batch, .* found .*wide"):
        lines(Runs(tmp_path))


def test_a_runs_hessian_is_made_again_from_its_start_and_its_checkpoint(tmp_path: Path) -> None:
    small = ["dataset=blobs", "dataset.size=20", "width=0.3", "steps=3", "device=cpu", "probe=[hessian]"]
    folder = runner.run([*small, "probe.hessian.matrices=[H]", f"hydra.run.dir={tmp_path}/run"])
    rows = pd.read_csv(folder / "hessian.csv")
    for step, number in (("first", 0), ("last", 3)):
        written = rows.loc[rows["step"] == number, "value"].to_numpy()
        assert np.linalg.eigvalsh(kept_hessian(folder, step)) == pytest.approx(written, abs=1e-12)
        assert (tmp_path / f"run-H-{step}.npy").is_file()
