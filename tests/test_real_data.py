"""The main job on the published formats: the real files where RUNNER_DATA_ROOT names them, tiny ones made here else."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from make_data import make_cifar10, make_cifar100, make_mnist, make_tiny_imagenet

import runner

MAKERS: dict[str, Callable[[Path], object]] = {
    "mnist": make_mnist,
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "tiny_imagenet": make_tiny_imagenet,
}
PLACES = {"mnist": "MNIST", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
SMALL_NET = ["arch.blocks=1", "arch.base_width=4"]


def data_root(name: str, tmp_path: Path) -> Path:
    real = Path(os.environ.get("RUNNER_DATA_ROOT", "/nowhere"))
    if (real / PLACES.get(name, "tiny-imagenet-200")).exists():
        return real
    MAKERS[name](tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", MAKERS)
def test_a_few_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = data_root(name, tmp_path)
    small = [] if name == "mnist" else SMALL_NET
    options = [f"dataset={name}", "dataset.verify=false", f"data_root={root}", "device=cpu", "batch_size=8", *small]
    folder = runner.run([*options, "width=0.5", "steps=3", f"hydra.run.dir={tmp_path / 'run'}"])
    frame = pd.read_csv(folder / "metrics.csv")
    assert frame["step"].tolist() == [0, 3]  # every 10 steps, and the first and the last
    assert frame["lr"].tolist() == [0.1, 0.1]
    measured = [column for column in frame.columns if column.startswith(("fd_", "split_"))]
    assert frame[measured].notna().all().all()
    assert frame["test_error"].isna().tolist() == [True, False]
    assert 0 <= frame["test_error"].iloc[-1] <= 1
    gap = (frame["split_gHg"] - frame["split_gGg"] - frame["split_gHrg"]).abs()
    assert (gap <= 1e-4 * (frame["split_gGg"] + frame["split_gHrg"].abs())).all()


def test_choosing_a_data_set_brings_what_the_paper_used_with_it() -> None:
    from hydra import compose, initialize_config_dir

    from runner.config import CONF_DIR

    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        for name in ("cifar10", "cifar100", "tiny_imagenet"):
            cfg = compose("config", overrides=[f"dataset={name}", "width=4"])
            assert cfg.arch._target_ == "runner.arch.resnet.CifarResNet"
            assert cfg.loss._target_ == "runner.loss.CrossEntropy"
            assert (cfg.schedule.milestones, cfg.schedule.gamma) == ([40, 80, 120], 0.5)
            assert (cfg.batch_size, cfg.epochs, cfg.optimizer.lr, cfg.optimizer.weight_decay) == (100, 160, 0.1, 0)
            assert cfg.dataset.augment
        other = compose("config", overrides=["dataset=cifar100", "arch=mlp", "schedule=cosine", "optimizer=adam"])
        assert other.arch._target_ == "runner.arch.mlp.MLP"
        assert other.optimizer.lr == 1e-3
        early = compose("config", overrides=["arch=mlp", "loss=mse", "dataset=cifar100"])  # the order does not matter
        assert early.arch._target_ == "runner.arch.mlp.MLP"
        assert early.loss._target_ == "runner.loss.MSE"
