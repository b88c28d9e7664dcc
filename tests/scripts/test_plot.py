"""scripts/plot.py: what is drawn, and what is refused."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake import fake_sweep
from make_runs import make_run

from runner.analysis import load
from runner.report.drawing import mean_and_range

Call = Callable[..., list[str]]
Refused = Callable[..., str]
SCRIPT = Path(__file__).parents[2] / "scripts" / "plot.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def rows(level: float) -> pd.DataFrame:
    steps = np.arange(4)
    about = {"train_loss": 1.0, "train_error": 0.5, "grad_norm": 2.0}
    return pd.DataFrame({"step": steps, "epoch": steps, **about, "split_gHg": level, "fd_gHg_mu1e-3": 2 * level})


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Full batch and batches of 10, two seeds of each; the last run has no rows yet."""
    jobs = [
        ({"batch_size": size, "seed": seed}, {"metrics": rows(level).head(0 if level == 4 and seed else 4)})
        for size, level in ((None, 1.0), (10, 2.0), (100, 4.0))
        for seed in (0, 1)
    ]
    return fake_sweep(tmp_path / "sweep", "any", jobs)


def test_null_is_a_setting_too(sweep: Path, script: dict[str, Any]) -> None:
    frame = load(sweep)
    assert script["knobs"](frame) == ["batch_size"]
    figure = script["figure"](frame, ["train_loss", "split_gHg"], "epoch", over_gg=False)
    drawn = {line.get_label(): float(line.get_ydata()[0]) for line in figure.axes[1].lines[:-1]}
    assert drawn == {"batch_size 10": 2.0, "batch_size 100": 4.0, "batch_size null": 1.0}
    plt.close(figure)


def test_only_what_is_quadratic_in_g_is_divided_by_gg(sweep: Path, script: dict[str, Any]) -> None:
    columns = ["train_error", "split_gHg", "fd_gHg_mu1e-3"]
    figure = script["figure"](load(sweep), columns, "step", over_gg=True)
    first = {axis.get_title(): float(axis.lines[0].get_ydata()[0]) for axis in figure.axes}
    assert first == {
        "training error": 0.5,
        "$g'Hg$ / $g'g$ (split)": 0.5,
        "$g'Hg$ / $g'g$ (fd, $\\mu$ = 1e-3)": 1.0,
    }
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "symlog", "symlog"]
    plt.close(figure)


def test_it_is_written_where_it_is_told(sweep: Path, call: Call) -> None:
    assert call("plot", sweep, "--columns", "split_gHg", "train_loss") == [str(sweep / "curvature.png")]
    assert (sweep / "curvature.png").stat().st_size > 1000
    assert call("plot", sweep, "--columns", "split_gHg", "--over-gg") == [str(sweep / "curvature-over-gg.png")]


def test_runs_that_have_not_ended_are_told(
    tmp_path: Path, script: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    metrics = "step,epoch,replica,train_loss\n0,0,0,0.5\n"
    for number, status in enumerate(["finished", "interrupted", "running", "running"]):
        make_run(tmp_path / f"{number}", {"seed": number}, metrics, status)
    script["tell_unfinished"](load(tmp_path))
    assert "plot: of 4 networks, 2 running, 1 interrupted: drawn as far as they have come" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "foo"], "--columns should name columns of numbers in metrics.csv, found foo"),
        (["--columns", "split_gHgg"], "found split_gHgg (did you mean split_gHg?)"),
        (["--columns", "status", "split_gHg"], "found status"),
        (["--save", "picture.foo"], "--save should end in one of .eps, "),
    ],
)
def test_what_cannot_be_drawn_is_refused(sweep: Path, refused: Refused, arguments: list[str], words: str) -> None:
    assert words in refused("plot", sweep, *arguments)


def test_the_folder_of_a_picture_is_made(sweep: Path, tmp_path: Path, call: Call) -> None:
    picture = tmp_path / "new" / "folder" / "picture.png"
    assert call("plot", sweep, "--save", picture) == [str(picture)]
    assert picture.stat().st_size > 1000


def test_where_no_picture_can_be_written(sweep: Path, tmp_path: Path, call: Call, capfd: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        call("plot", sweep, "--save", tmp_path / "file" / "picture.png")
    assert stopped.value.code == 1
    assert "plot: " in (said := capfd.readouterr().err)
    assert "picture.png cannot be written: " in said


def test_networks_that_diverged_are_left_out(tmp_path: Path, script: dict[str, Any], call: Call, capfd: Any) -> None:
    jobs = [({"seed": seed}, {"metrics": rows(level)}) for seed, level in enumerate((1.0, 1e20))]
    folder = fake_sweep(tmp_path / "sweep", "any", jobs)
    frame = load(folder)
    gone = frame.assign(status=np.where(frame["split_gHg"] > 1, "diverged", "finished"))
    assert script["converging"](gone)["split_gHg"].max() == 1
    assert "plot: 1 network that diverged left out" in capfd.readouterr().err
    everyone = frame.assign(status="diverged")
    assert len(script["converging"](everyone)) == len(frame)


def test_curvatures_are_logarithmic_down_to_the_small_ones(tmp_path: Path, script: dict[str, Any]) -> None:
    """Where training converges they fall by decades, and their sign should be seen."""
    falling = rows(1.0).assign(split_gHg=[1.0, 1e-3, -1e-5, 1e-6])
    frame = load(fake_sweep(tmp_path / "sweep", "any", [({}, {"metrics": falling})]))
    figure = script["figure"](frame, ["split_gHg"], "step", over_gg=False)
    assert figure.axes[0].yaxis.get_transform().linthresh == pytest.approx(1e-6)
    plt.close(figure)


def test_means_that_change_their_sign_from_row_to_row_are_dotted() -> None:
    steps = np.arange(200)

    def drawn(mean: np.ndarray) -> tuple[Any, Any]:
        figure, axis = plt.subplots()
        mean_and_range(axis, pd.DataFrame({"mean": mean, "min": mean - 1, "max": mean + 1}), color="black")
        plt.close(figure)
        return axis.lines[0].get_linestyle(), axis.lines[0].get_marker()

    assert drawn((-1.0) ** steps) == ("None", ".")
    assert drawn(steps - 100.0) == ("-", "None")
    assert drawn((-1.0) ** steps[:20]) == ("-", "None")
    assert drawn(np.ones(1))[1] == "o"


def test_more_settings_than_colours_are_refused(tmp_path: Path, refused: Refused) -> None:
    jobs = [({"width": float(width)}, {"metrics": rows(1.0)}) for width in range(1, 22)]
    said = refused("plot", fake_sweep(tmp_path / "sweep", "any", jobs))
    assert "should hold at most 20 settings, found 21 that differ in width: name the folder of one sweep" in said


def test_runs_without_rows_are_refused(tmp_path: Path, refused: Refused) -> None:
    fake_sweep(tmp_path / "sweep", "any", [({}, {"metrics": rows(1.0).head(0)})])
    assert "found no rows" in refused("plot", tmp_path / "sweep")
