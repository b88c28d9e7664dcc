"""Rates that follow from the measured curvature along the gradient."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import runner
from runner import reload
from runner.errors import BadInput
from runner.schedule_curvature import Curvature

SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu"]
CONV = [
    *("dataset=random_images", "dataset.size=50", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50"),
    *("arch.blocks=1", "arch.base_width=4", "batch_size=12", "log_every=1", "device=cpu"),
]
RATE = ["schedule=curvature", "schedule.every=3"]


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def read(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


def told(schedule: Curvature, *curvatures: float, initial: float = 1.0) -> list[float]:
    """The rate after each measurement."""
    rates = []
    for kappa in curvatures:
        schedule.take({"schedule_gg": 2.0, "schedule_gMg": torch.tensor(2.0 * kappa)}, initial)
        rates.append(schedule.rate(initial, 0, 1))
    return rates


def test_the_rate_is_the_measured_suggestion() -> None:
    schedule = Curvature(damping=0.5, memory=0.0)
    assert schedule.rate(0.7, 0, 1) == 0.7  # before anything is known
    assert told(schedule, 2.0, 4.0) == pytest.approx([0.25, 0.125])


def test_the_mean_is_one_of_curvatures() -> None:
    assert told(Curvature(memory=0.5, growth=9.0), 2.0, 6.0, 1.0) == pytest.approx([1 / 2, 1 / 4, 1 / 2.5])


def test_the_rate_rises_by_no_more_than_growth_and_falls_at_once() -> None:
    assert told(Curvature(memory=0.0, growth=1.5), 0.1, 0.1, 100.0) == pytest.approx([1.5, 2.25, 0.01])


def test_bounds() -> None:
    assert told(Curvature(memory=0.0, least=0.1, largest=2.0, growth=10.0), 1e-6, 1e6) == [2.0, 0.1]


@pytest.mark.parametrize("useless", [0.0, -3.0, math.nan, math.inf])
def test_a_curvature_that_suggests_no_step_keeps_the_last_rate(useless: float) -> None:
    first, second, third = told(Curvature(memory=0.5), 2.0, useless, 2.0)
    assert first == second == third == 0.5


def test_without_a_gradient_the_rate_stays() -> None:
    schedule = Curvature()
    schedule.take({"schedule_gg": 0.0, "schedule_gMg": 0.0}, 1.0)
    assert schedule.rate(1.0, 0, 1) == 1.0


@pytest.mark.parametrize("kappa", [0.2, 1.0, 30.0])
def test_a_target_is_reached_and_held(kappa: float) -> None:
    rates = told(Curvature(mode="target", target=0.5, growth=1.5), *[kappa] * 60)
    assert rates[-1] * kappa == pytest.approx(0.5, rel=1e-3)
    assert all(later / earlier <= 1.5 for earlier, later in zip([1.0, *rates], rates, strict=False))


def test_the_target_mode_grows_where_the_curvature_is_not_positive_and_never_falls_beyond_the_target() -> None:
    assert told(Curvature(mode="target", growth=1.2), -5.0, 0.0) == pytest.approx([1.2, 1.44])
    assert told(Curvature(mode="target", target=1.0, growth=3.0), 100.0) == pytest.approx([0.01])


def test_state_goes_on() -> None:
    schedule, other = Curvature(), Curvature()
    for one in (schedule, other):
        one.measures.at_a_time, one.measures.compiled = None, False
    told(schedule, 3.0, 1.0)
    other.load(schedule.state())
    assert told(other, 2.0) == told(schedule, 2.0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *[(key, value, "a number > 0") for key in ("damping", "target", "least", "largest") for value in (0, math.inf)],
        ("memory", 1.0, "from 0 to below 1"),
        ("growth", 1.0, "> 1"),
        ("every", 0, "at least 1"),
        ("largest", 1e-9, r"at least schedule\.least"),
    ],
)
def test_refuses_impossible_values(key: str, value: float, message: str) -> None:
    with pytest.raises(BadInput, match=f"schedule.{key} should be .*{message}"):
        Curvature(**{key: value})


@pytest.mark.parametrize(("matrix", "column"), [("G", "split_gGg"), ("H", "split_gHg")])
def test_rates_in_metrics_csv_are_those_of_the_coming_updates(tmp_path: Path, matrix: str, column: str) -> None:
    """Remade from what the probe has measured, on the same weights and batches."""
    more = [*RATE, "schedule.memory=0.5", f"schedule.matrix={matrix}", "probe=split", "steps=20", "precision=fp64"]
    frame = read(run_in(tmp_path / "run", *CONV, *more))
    rate, mean, expected = 0.1, None, []
    for _, row in frame.iterrows():
        kappa = row[column] / row["grad_norm"] ** 2
        if row["step"] % 3 == 0 and kappa > 0:
            mean = kappa if mean is None else (mean + kappa) / 2
            rate = min(1 / mean, 1.5 * rate)
        expected.append(rate)
    assert frame["lr"].tolist() == pytest.approx(expected, rel=1e-9)
    assert frame["lr"].nunique() > 4


def test_the_update_takes_the_rate_of_its_row_and_so_does_the_estimate(tmp_path: Path) -> None:
    frame = read(run_in(tmp_path / "run", *SMALL, *RATE, "probe=fd", "probe.fd.form=next_batch", "steps=8"))
    assert frame["fd_decorrelated"].to_numpy() == pytest.approx((frame["grad_norm"] ** 2 / frame["lr"]).to_numpy())
    again = read(run_in(tmp_path / "fixed", *SMALL, f"optimizer.lr={float(frame['lr'][0])}", "probe=[]", "steps=1"))
    assert again["train_loss"][1] == frame["train_loss"][1]


@pytest.mark.parametrize("setting", [SMALL, CONV], ids=["mlp", "conv"])
def test_probes_and_schedule_do_not_see_each_other(tmp_path: Path, setting: list[str]) -> None:
    more = [*setting, *RATE, "steps=10"]
    bare = read(run_in(tmp_path / "bare", *more, "probe=[]"))
    full = read(run_in(tmp_path / "full", *more, "probe=[split,fd,hvp]"))
    other = read(run_in(tmp_path / "other", *more, "probe=[split,fd,hvp]", "schedule.method=double_backward"))
    assert full[bare.columns].to_csv() == bare.to_csv()
    assert other["lr"].to_numpy() == pytest.approx(full["lr"].to_numpy(), rel=1e-2)
    first = read(run_in(tmp_path / "first", *setting, "steps=0", "probe=[split,fd,hvp]"))
    columns = ["split_gHg", "split_gGg", "hvp_gHg"]
    assert first[columns].iloc[0].tolist() == full[columns].iloc[0].tolist()  # whatever the rate


@pytest.mark.parametrize("name", ["curvature", "target_curvature"])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_stopped_run_continues_to_the_same_bytes(
    tmp_path: Path, stopped_at: Callable[..., Any], name: str, at: int
) -> None:
    more = [*CONV, f"schedule={name}", "schedule.every=2", "steps=12", "probe=[fd,split]"]
    whole = run_in(tmp_path / "whole", *more)
    with stopped_at(at):
        run_in(tmp_path / "cut", *more)
    run_in(tmp_path / "cut", *more)
    assert (whole / "metrics.csv").read_bytes() == (tmp_path / "cut" / "metrics.csv").read_bytes()


def test_a_finished_run_is_extended_as_if_it_had_never_ended(tmp_path: Path) -> None:
    whole = run_in(tmp_path / "whole", *CONV, *RATE, "steps=11", "probe=[]")
    short = run_in(tmp_path / "short", *CONV, *RATE, "steps=6", "probe=[]")
    run_in(short, *CONV, *RATE, "steps=11", "probe=[]")
    assert (whole / "metrics.csv").read_bytes() == (short / "metrics.csv").read_bytes()


def test_kill_9_and_again_gives_the_same_bytes(tmp_path: Path) -> None:
    more = [*SMALL, *RATE, "steps=3000", "checkpoint_minutes=0.0005", "log_every=50", "probe=[]"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_in(whole, *more)
    command = [sys.executable, "-m", "runner", *more, f"hydra.run.dir={cut}"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (cut / "checkpoint.previous.pt").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert killed.returncode == -signal.SIGKILL, "it was to be killed before its end"
    step = torch.load(cut / "checkpoint.previous.pt", weights_only=True)["step"]
    run_in(cut, *more)
    assert 0 < step < 3000
    assert (whole / "metrics.csv").read_bytes() == (cut / "metrics.csv").read_bytes()


def test_the_cost_of_its_measurements_is_told(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, *RATE, "steps=4", "probe=fd")
    assert set(json.loads((folder / "meta.json").read_text())["cost_in_training_steps"]) == {"fd", "schedule"}


def test_bf16_takes_the_gradient_of_the_measurement(tmp_path: Path) -> None:
    frame = read(run_in(tmp_path / "run", *CONV, *RATE, "schedule.growth=1e9", "precision=bf16", "steps=2"))
    assert frame["lr"][0] == pytest.approx(frame["split_gg"][0] / frame["split_gGg"][0], rel=1e-5)


def test_two_devices_give_the_rates_of_one(tmp_path: Path) -> None:
    more = [*SMALL, *RATE, "steps=8", "precision=fp64", "probe=[]"]
    one, two = (read(run_in(tmp_path / n, *more, f"devices={n}")) for n in ("1", "2"))
    assert two["lr"].to_numpy() == pytest.approx(one["lr"].to_numpy(), rel=1e-8)


def test_measured_afterwards_the_rate_is_not_made_up(tmp_path: Path) -> None:
    """It follows from the whole path, of which a snapshot knows nothing."""
    folder = run_in(tmp_path / "run", *SMALL, *RATE, "probe=snapshot", "steps=4")
    cfg = reload.probing(reload.config(folder), ["probe=[fd,split]"])
    cells, at = reload.measurement(reload.experiment(cfg), reload.networks(folder, cfg)[-1])
    probes = reload.experiment(cfg).probes
    assert cells["lr"] is None
    assert set(at.cells("fd", probes["fd"]).values()) == {None}
    assert float(cells["train_loss"]) == pytest.approx(read(folder)["train_loss"].iloc[-1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["replicas=2"], r"replicas should be 1 with the schedule Curvature.*found 2; use a sweep over seeds"),
        (["optimizer=momentum"], r"optimizer should be sgd without momentum.*found SGD, momentum=0.9"),
        (["+optimizer.maximize=true"], r"optimizer should be sgd without momentum.*found SGD, maximize="),
        (["optimizer.weight_decay=0.1"], r"found SGD, weight_decay=0.1"),
        (["optimizer=adam"], r"optimizer should be sgd .*found Adam"),
        (["optimizer=lbfgs"], r"optimizer should be sgd .*found LBFGS"),
        (["clip_norm=1"], r"clip_norm should be null with the schedule Curvature"),
        (["optimizer.lr=0"], r"optimizer\.lr should be a number > 0"),
        (["schedule.matrix=H_r"], r"schedule\.matrix should be"),
    ],
)
def test_refuses_combinations_that_make_no_sense(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run_in(tmp_path / "run", *SMALL, *RATE, *overrides)
    assert not (tmp_path / "run").exists()
