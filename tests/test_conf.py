"""Contracts that every yaml joins by existing."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

import runner
from runner.config import CONF_DIR

TINY = ["dataset.size=24", "arch.depth=3", "arch.base_width=5", "device=cpu", "steps=2", "batch_size=8"]

# What goes with a choice that is not made for every setting.
NEEDS = {
    "optimizer=levenberg_marquardt": ["precision=fp64", "batch_size=null"],
    "init=interpolating": ["arch.bias=true", "arch.base_width=24"],
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(CONF_DIR) / group).glob("*.yaml") if path.stem != "custom")


def test_there_are_groups() -> None:
    for group in ("dataset", "arch", "init", "loss", "optimizer", "schedule", "probe"):
        assert choices(group), group


def test_a_composed_config_shares_nothing_with_the_next_one() -> None:
    def composed() -> DictConfig:
        with initialize_config_dir(CONF_DIR, version_base="1.3"):
            return compose("config", return_hydra_config=True)

    first = composed()
    expected = OmegaConf.to_container(first)
    with open_dict(first):
        first.until.grad_norm, first.hydra.sweeper.params, first.logger = 1.0, {"seed": "1,2"}, ["csv"]
    assert OmegaConf.to_container(composed()) == expected
    assert OmegaConf.to_container(first) != expected


@pytest.mark.parametrize("name", choices("probe"))
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_every_probe(tmp_path: Path, name: str, dtype: str) -> None:
    """Its columns are prefixed by its name, filled where it is due on the batch and on a held-out one, and empty
    elsewhere; it changes nothing; twice gives the same bytes."""
    options = [f"probe.{name}.every=2", f"probe.{name}.on=[batch,heldout]", f"probe.{name}.dtype={dtype}"]
    folder = runner.run([*TINY, f"probe={name}", *options, f"hydra.run.dir={tmp_path / 'a'}"])
    bare = runner.run([*TINY, "probe=[]", f"hydra.run.dir={tmp_path / 'bare'}"])
    again = runner.run([*TINY, f"probe={name}", *options, f"hydra.run.dir={tmp_path / 'b'}"])
    frame, training = pd.read_csv(folder / "metrics.csv"), pd.read_csv(bare / "metrics.csv")
    own = [column for column in frame.columns if column not in training.columns]
    assert own
    assert all(column.startswith(f"{name}_") for column in own)
    assert any(column.startswith(f"{name}_heldout_") for column in own)
    assert frame[own].notna().all(axis=1).tolist() == [True, False, True]
    assert frame[own].iloc[1].isna().all()
    assert frame[training.columns].to_csv() == training.to_csv()
    assert (folder / "metrics.csv").read_bytes() == (again / "metrics.csv").read_bytes()
    one, other = (torch.load(f / "checkpoint.pt", weights_only=True)["model"] for f in (folder, bare))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", choices("optimizer"))
def test_every_optimizer(tmp_path: Path, name: str) -> None:
    needed = NEEDS.get(f"optimizer={name}", [])
    folder = runner.run([*TINY, f"optimizer={name}", *needed, "probe=fd", f"hydra.run.dir={tmp_path / 'run'}"])
    assert len(pd.read_csv(folder / "metrics.csv")) == 3


@pytest.mark.parametrize("name", choices("schedule"))
def test_every_schedule(tmp_path: Path, name: str) -> None:
    folder = runner.run([*TINY, f"schedule={name}", "probe=[]", f"hydra.run.dir={tmp_path / 'run'}"])
    assert pd.read_csv(folder / "metrics.csv")["lr"].notna().all()


@pytest.mark.parametrize("name", choices("init"))
def test_every_init(tmp_path: Path, name: str) -> None:
    needed = NEEDS.get(f"init={name}", [])
    folder = runner.run([*TINY, f"init={name}", *needed, "probe=[]", f"hydra.run.dir={tmp_path / 'run'}"])
    assert pd.read_csv(folder / "metrics.csv")["train_loss"].notna().all()


@pytest.mark.parametrize("name", choices("loss"))
def test_every_loss(tmp_path: Path, name: str) -> None:
    folder = runner.run([*TINY, f"loss={name}", f"hydra.run.dir={tmp_path / 'run'}"])
    frame = pd.read_csv(folder / "metrics.csv")
    assert frame["split_gGg"].notna().all()
    if name != "brier":  # all others are convex in the outputs
        assert (frame["split_gGg"] >= 0).all()
    assert frame["train_error"].between(0, 1).all()


@pytest.mark.parametrize("name", choices("arch"))
def test_every_arch(tmp_path: Path, name: str) -> None:
    data = ["dataset=random_images", "dataset.size=8", "dataset.shape=[3,8,8]", "batch_size=4", "width=0.1"]
    folder = runner.run([*data, f"arch={name}", "steps=1", "device=cpu", f"hydra.run.dir={tmp_path / 'run'}"])
    assert pd.read_csv(folder / "metrics.csv")["split_gHg"].notna().all()
