"""The command line as a user runs it, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from runner import notebook
from runner.cli import main
from runner.errors import BadInput
from runner.signals import STOPPING

SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu"]

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs: int, input_shape: tuple[int, ...], hidden: int = 4, slope: float = 0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(input_shape[0], hidden), nn.LeakyReLU(slope), nn.Linear(hidden, outputs)
        )

    def forward(self, x):
        return self.layers(x)

class Cubic(nn.Module):
    encoding = "value"
    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale
    def forward(self, outputs, targets):
        return self.scale * (outputs - targets).abs().pow(3).mean()
"""


def runner(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner", *overrides],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def only_run(folder: Path, name: str = "default") -> Path:
    (found,) = (path.parent for path in (folder / "outputs" / name).glob("*/metrics.csv"))
    return found


def test_a_single_run(tmp_path: Path) -> None:
    result = runner(tmp_path, *SMALL, "steps=5")
    assert result.returncode == 0, result.stderr
    folder = only_run(tmp_path)
    assert re.fullmatch(r"gaussian-mlp-width1-seed0-[0-9a-f]{10}", folder.name)
    assert pd.read_csv(folder / "metrics.csv")["step"].tolist() == list(range(6))
    assert "finished after 5 steps" in result.stdout
    assert "split_gHg < 0, share of 6 steps" in result.stdout
    assert str(folder) in result.stdout
    assert "nothing was left to do" not in result.stdout
    assert re.search(r"step 5/5 .*loss .*fd_gHg .*split_gHg .*split_gGg .*split_gHrg ", result.stderr)
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["hash"] == folder.name.rsplit("-", 1)[1]
    assert meta["config"]["dataset"]["dim"] == 6
    assert meta["parameters"] == 6 * 6 * 2 + 6
    assert set(meta["cost_in_training_steps"]) == {"fd", "split"}
    overrides = (folder / ".hydra" / "overrides.yaml").read_text()
    assert "steps=5" in overrides


def test_a_sweep(tmp_path: Path) -> None:
    result = runner(tmp_path, "-m", *SMALL, "steps=2", "width=1,2", "seed=0,1", "name=sweep")
    assert result.returncode == 0, result.stderr
    folders = sorted((tmp_path / "outputs" / "sweep").glob("*/metrics.csv"))
    assert len(folders) == 4
    again = runner(
        tmp_path, *SMALL, "steps=2", "width=2", "seed=1", "name=sweep"
    )  # the same run, alone: found finished
    assert again.returncode == 0
    assert "nothing was left to do" in again.stdout
    assert len(sorted((tmp_path / "outputs" / "sweep").glob("*/metrics.csv"))) == 4
    script = (
        "import runner; f = runner.analysis.load('outputs/sweep'); "
        "print(sorted(f.columns), len(f), sorted(f.width.unique()))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'width'" in loaded.stdout
    assert " 12 " in loaded.stdout


BAD = {
    "widht=3": "unknown key widht (did you mean width?)",
    "lr=0.1": "unknown key lr (did you mean optimizer.lr?)",
    "probe=[fd,hessain]": "probe should be one of alignment, density, fd, ",
    "optimizer=sdg": "found sdg (did you mean sgd?)",
    "+lr=0.1": "unknown key lr (did you mean optimizer.lr?)",
    "+until.loss=3": "unknown key until.loss",
    "probe.hessian.save=true": "probe.hessian needs the probe hessian among those that measure, found others",
    "experiment=convex_batch probe=[split]": "probe.gradients.sample needs the probe gradients among those",
    "arch.width=33": "arch.width should be left to width, the multiplier of arch.base_width, found 33",
    "logger=tensorboard": "logger should be a list, found tensorboard: logger=[tensorboard]",
    "hydra/launcher=joblb": "hydra/launcher should be one of basic, joblib, slurm, submitit_local, submitit_slurm, ",
    "until=null": "until should not be null, found until=null; leave it out",
    "+optimizer.lr=0.2": "optimizer.lr is a key already, found a + before it",
    "plan=maybe": "plan should be true or false, found maybe",
    "steps=1.5": "steps should be an integer, found 1.5",
    "width=1,2": "width should have one value, found 1,2; -m sweeps over several",
    "width": "what is given should read key=value, found 'width'",
    "name=../elsewhere": "name should be that of a folder below outputs/, found '../elsewhere'",
    "name=": "name should be that of a folder below outputs/, found ''",
    "arch.dpeth=3": "unknown key arch.dpeth (did you mean arch.depth?)",
    "optimizer.lrr=3": "unknown key optimizer.lrr (did you mean optimizer.lr?)",
    "probe.split.evry=3": "unknown key probe.split.evry (did you mean probe.split.every?)",
    "probe.fd.muh=3": "unknown key probe.fd.muh (did you mean probe.fd.mu?)",
    "arch=foo": "runner: arch should be one of custom, mlp, ",
    "width=0": "width should be",
    "width=-1": "width should be",
    "width=foo": "width should be a number, found foo",
    "epochs=-1": "epochs should be at least 0, found -1",
    "batch_size=0": "batch_size should be at least 1",
    "batch_size=1001": "batch_size",
    "precision=fp16": "precision should be fp32, fp64 or bf16, found fp16",
    "device=cuda:99": "device=cuda:99 is not there",
    "sweep.jobs_per_device=0": "sweep.jobs_per_device should be at least 1, found 0",
    "device=tpu": "device should be auto, cpu, cuda",
    "arch.activation=foo": "arch.activation should be",
    "arch.depth=x": "arch.depth should be an integer, found 'x'",
    "arch=custom": "arch._target_ should be given",
    "optimizer.lr=abc": "optimizer.lr should be a number, found 'abc'",
    "optimizer.lr=-1": "optimizer.lr should be a finite number >= 0, found -1",
    "probe.fd.mu=-1": "mu should be lr, a positive finite number",
    "probe.fd.mu=inf": "mu should be lr, a positive finite number",
    "optimizer.weight_decay=nan": "optimizer.weight_decay should be a number, found nan",
    "dataset.labels=[nan,1.0]": "dataset.labels should be a number, found [nan, 1.0]",
    "probe.split.every=0": "every should be null or at least 1",
    "probe.split.on=[elsewhere]": "probe.split.on should be",
    "arch.outputs=3": "outputs",
    "hydra.run.dir=/proc/nowhere": "cannot be written",
    "probe.fd=null": "probe.fd should be a probe's keys, found None; probe=[…] lists those that measure",
    "probe={fd:1}": "probe.fd should be a probe's keys, found 1",
    "optimizer=adam optimizer.betas=[0.9]": "optimizer.betas should be a list of 2, each a number",
    "optimizer=adam optimizer.betas=[0.9,0.9,0.9]": "optimizer.betas should be a list of 2",
    "optimizer=lbfgs optimizer.lr=0": "the first rate should be above 0 with LBFGS",
    "optimizer=null": "Config group override must be a string or a list",
    "=3": "Config group override must be a string or a list",
    "-m --cfg job": "Only one of --run, --multirun, --cfg",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    tmp_path: Path, override: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["runner", *override.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert BAD[override] in said
    assert "Traceback" not in said
    assert said.startswith("runner: ")
    assert not list(tmp_path.rglob("*.csv"))
    assert not list(tmp_path.glob("*/*")), "a refused run leaves no folder"


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    result = runner(tmp_path, "width=0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("runner: width should be")


def test_a_traceback_can_be_asked_for(tmp_path: Path) -> None:
    result = runner(tmp_path, "width=-1", HYDRA_FULL_ERROR="1")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("values", "words"),
    [("precision=fp32,fp16", "precision should be"), ("width=1,x", "width should be a number, found x")],
)
def test_a_sweep_with_bad_input_does_not_start(tmp_path: Path, values: str, words: str) -> None:
    result = runner(tmp_path, "-m", *SMALL, "steps=1", values)
    assert result.returncode == 2
    assert f"{values.replace('1,', '').replace('fp32,', '')}: {words}" in result.stderr
    assert "Warning" not in result.stderr
    assert not list(tmp_path.rglob("metrics.csv"))


def test_from_python_there_is_one_run() -> None:
    with pytest.raises(BadInput, match="overrides should be those of one run, found -m"):
        notebook.run(["-m", "width=1,2"])


def test_a_failed_job_does_not_stop_its_siblings(tmp_path: Path) -> None:
    result = runner(tmp_path, "-m", *SMALL, "steps=1", "batch_size=61,60")  # known only once the data are there
    assert result.returncode == 1, result.stderr
    assert "batch_size" in result.stderr
    assert len(list(tmp_path.rglob("metrics.csv"))) == 1


def test_a_diverged_run_exits_with_0(tmp_path: Path) -> None:
    result = runner(tmp_path, *SMALL, "steps=50", "optimizer.lr=1e8")
    assert result.returncode == 0, result.stderr
    assert "diverged after" in result.stdout


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_checkpoints_and_exits_with_128_plus_n(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *SMALL, "steps=1000000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    )
    for _ in range(600):
        time.sleep(0.1)
        if any(path.stat().st_size > 1000 for path in tmp_path.rglob("metrics.csv")):
            break
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    folder = only_run(tmp_path)
    state = json.loads((folder / "status.json").read_text())
    assert (state["status"], state["reason"]) == ("interrupted", number.name)
    assert pd.read_csv(folder / "metrics.csv")["step"].tolist() == list(range(state["step"]))
    resumed = runner(tmp_path, *SMALL, f"steps={state['step'] + 3}")
    assert resumed.returncode == 0
    assert f"continuing at step {state['step']}" in resumed.stderr
    assert pd.read_csv(folder / "metrics.csv")["step"].tolist() == list(range(state["step"] + 4))


def test_networks_and_losses_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    own = ["arch=custom", "arch._target_=mine.Net", "recipe.base_width=5", "init=default", "steps=2", "dataset.size=30"]
    result = runner(tmp_path, *own, "arch.hidden=7", "loss=custom", "loss._target_=mine.Cubic", "loss.scale=2.0")
    assert result.returncode == 0, result.stderr
    meta = json.loads((only_run(tmp_path) / "meta.json").read_text())
    assert meta["parameters"] == 5 * 7 + 7 + 7 + 1
    wrong = runner(tmp_path, *own, "arch.hiden=7")
    assert wrong.returncode == 2
    assert "arch.hiden is no key of Net; it takes outputs, input_shape, hidden, slope" in wrong.stderr
    typed = runner(tmp_path, *own, "arch.hidden=seven")
    assert typed.returncode == 2
    assert "arch.hidden should be an integer, found 'seven'" in typed.stderr
    other = runner(tmp_path, *own, "optimizer=custom", "optimizer._target_=torch.optim.NAdam", "optimizer.lr=1e-3")
    assert other.returncode == 0, other.stderr


def test_help_and_config_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['runner', '--cfg', 'job']; from runner.cli import main; main(); "
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "width: 1.0" in result.stdout


def test_jobs_of_a_sweep_that_are_one_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["runner", "-m", "steps=3,6"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert "runner: jobs of a sweep should be different runs, found one as 'steps=3' and as 'steps=6'" in said
    assert not list(tmp_path.rglob("*.csv"))
