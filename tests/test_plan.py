"""plan=true: what is counted is right, what is measured is plausible, and nothing is written."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console
from test_sweep import command, env
from torch import Tensor, nn

import runner
from runner import plan
from runner.config import CONF_DIR
from runner.left import share_left

SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "dataset.dim=4", "device=cpu"]


def composed(*overrides: str):
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return compose("config", overrides=[*SMALL, *overrides])


def test_counts() -> None:
    found = plan.estimate(composed("epochs=10", "batch_size=25", "probe=[fd,split]", "probe.split.every=10"))
    assert found.parameters == 4 * 6 + 6 * 6 + 6
    assert (found.steps, found.steps_per_epoch) == (30, 3)
    assert found.evaluation_seconds == 0  # there is no test set
    rows, columns, epochs = 31, 9 + 5, 10 * (7 + 5 * 9)
    weights = 2 * 4 * found.parameters
    assert found.disk_bytes == plan.CELL_BYTES * (rows * columns + epochs) + weights
    assert found.memory_bytes > 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["steps=100", "probe=[hessian,snapshot]", "probe.hessian.every=1", "probe.snapshot.every=1"],
        ["steps=40", "probe=[hessian]", "probe.hessian.save=true"],
        ["steps=1000", "replicas=20", "log_every=500", "probe=[fd]"],
    ],
)
def test_disk_is_about_what_a_run_takes(tmp_path: Path, overrides: list[str]) -> None:
    found = plan.estimate(composed(*overrides)).disk_bytes
    folder = runner.run([*SMALL, *overrides, f"hydra.run.dir={tmp_path / 'run'}"])
    kept = [path for path in folder.rglob("*") if path.suffix in (".csv", ".pt", ".npy")]
    taken = sum(path.stat().st_size for path in kept)
    assert taken / 3 < found < 3 * taken


def test_cost_grows_with_what_is_asked_for() -> None:
    few = plan.estimate(composed("steps=100", "probe=fd", "probe.fd.every=100", "log_every=100"))
    many = plan.estimate(composed("steps=100", "probe=[fd,hvp,split,products]"))
    assert 0 < few.probe_seconds < many.probe_seconds
    assert many.probe_seconds > many.training_seconds


def test_a_run_on_several_devices_is_estimated_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "BANDWIDTH", 1e9)
    assert plan.step_on(1, 0.5, 10**6) == 0.5
    # a quarter of the work, and a ring's 6 messages of a quarter of 4 MB at 1 GB/s, 20 us each
    assert plan.step_on(4, 0.5, 10**6) == pytest.approx(0.125 + 6 * 0.001 + 6 * 20e-6)
    given = ["steps=50", "probe=split"]
    alone, four = (plan.estimate(composed(*given, f"devices={devices}")) for devices in (1, 4))
    assert four.parameters == alone.parameters
    monkeypatch.setattr(plan, "BANDWIDTH", 1.0)
    slow = plan.estimate(composed(*given, "devices=4"))
    messages = 51 * 6 / 4 * 4 * slow.parameters  # of 50 steps and the last row, in seconds, at a byte a second
    assert slow.training_seconds == pytest.approx(messages, rel=1e-3)


def test_jobs_that_differ_in_the_seed_only_are_measured_once() -> None:
    cfgs = [composed(f"seed={seed}", f"width={width}") for width in (1, 2) for seed in (0, 1, 2)]
    found = plan.distinct(cfgs, [f"width={cfg.width}" for cfg in cfgs], [Path("nowhere")] * 6)
    assert [(group.name, group.left) for group in found] == [("width=1.0", [1.0] * 3), ("width=2.0", [1.0] * 3)]


def test_totals() -> None:
    one = plan.Estimate(10, 100, 10, 3600.0, 1800.0, 1800.0, 2**30, 2**30, 2**30)
    assert one.seconds == 7200
    text = plan.totals([one, one], [[1.0] * 3, [1.0]])
    assert text == "4 runs, 4 GiB on disk; hours in all, by the number of devices: 8 on 1, 4 on 2, 2 on 4"
    assert plan.totals([one, one], [[0.0, 0.25, 1.0], [0.0]]) == f"{text}\nleft to do: 2 runs, hours: 2.5 on 1, 2 on 2"
    assert plan.totals([one, one], [[0.0] * 3, [0.0]]) == f"{text}\nleft to do: 0 runs"


def test_what_is_done_is_not_left_to_do(tmp_path: Path) -> None:
    """By a sweep of which one run has ended, one goes on to more steps, one has diverged and one is another's."""
    folders = [tmp_path / str(seed) for seed in range(5)]
    asked = [composed("steps=20", f"seed={seed}") for seed in range(5)]
    for folder, given in zip(folders, (["steps=20"], ["steps=15"], ["steps=20", "optimizer.lr=1e9"]), strict=False):
        runner.run([*SMALL, *given, f"seed={folder.name}", f"hydra.run.dir={folder}"])
    runner.run([*SMALL, "steps=20", "seed=3", "width=2", f"hydra.run.dir={folders[3]}"])
    diverged = composed("steps=20", "seed=2", "optimizer.lr=1e9")
    asked[2] = diverged
    assert [share_left(cfg, folder) for cfg, folder in zip(asked, folders, strict=True)] == [0, 0.25, 0, 1, 1]


class Greedy(nn.Module):
    def __init__(self, input_shape: list[int], outputs: int, width: float) -> None:
        if width > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__()
        self.layer = nn.Linear(input_shape[0], outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


def test_a_job_that_is_killed_leaves_the_others_their_plan() -> None:
    own = ["arch=custom", f"arch._target_={__name__}.Greedy", "init=default", "dataset.size=20", "device=cpu"]
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        cfgs = [compose("config", overrides=[*own, f"width={width}"]) for width in (1, 2)]
    console = Console(record=True, width=100)
    plan.show(cfgs, ["width=1", "width=2"], [Path("nowhere")] * 2, console)
    text = console.export_text()
    assert re.search(r"width=2 +1 +killed", text)
    assert "\n1 run, " in text
    assert "not counted: 1 run whose process the system killed" in text


def test_a_sweep_in_which_a_job_would_be_refused(tmp_path: Path) -> None:
    """The others' plan, and one sentence for it, as without a sweep."""
    wide = ["-m", "width=0.2,4", "probe=hessian", "dataset.size=20", "steps=1", "plan=true"]
    result = subprocess.run(command(*wide), cwd=tmp_path, env=env(COLUMNS="80"), capture_output=True, text=True)
    assert result.returncode == 2
    assert re.search(r"width=4 +1 +refused", result.stdout)
    assert "\n1 run, " in result.stdout
    assert result.stderr.startswith("runner: width=4: probe.hessian: the matrices of a network with ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("sweep", [False, True])
def test_the_command(tmp_path: Path, sweep: bool) -> None:
    many = ["-m", "width=1,2", "seed=0,1"] if sweep else []
    result = subprocess.run(
        command(*many, *SMALL, "steps=5", "plan=true"),
        cwd=tmp_path,
        env=env(COLUMNS="80"),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert ("4 runs" if sweep else "1 run,") in result.stdout
    assert " MiB of" in result.stdout, "the last column should be seen on a terminal of 80 characters"
    assert not (tmp_path / "outputs").exists()
    assert "66" in result.stdout  # parameters
    assert not list(tmp_path.rglob("*.csv"))
