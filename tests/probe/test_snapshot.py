"""What the snapshot probe keeps: the network, bit for bit, and how far it has come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import runner
from runner.arch.mlp import MLP
from runner.curvature.batch_loss import BatchLoss
from runner.errors import BadInput
from runner.probe.snapshot import own_state, unsaved

SMALL = ["dataset.size=24", "arch.depth=3", "arch.base_width=5", "device=cpu", "batch_size=8", "probe=snapshot"]
CONV = [
    "dataset=random_images", "dataset.size=24", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50",
    "arch.blocks=1", "arch.base_width=4", "batch_size=8", "device=cpu", "probe=snapshot",
]  # fmt: skip


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def kept(folder: Path, step: int) -> dict[str, torch.Tensor]:
    (path,) = (folder / "snapshot").glob(f"weights-step{step}*.pt")
    return torch.load(path, weights_only=True)["model"]


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([entry.flatten() for entry in state.values()]).double()


def test_one_file_for_each_step_of_the_cadence(tmp_path: Path) -> None:
    on = "probe.snapshot.on=[batch,heldout]"
    folder = run_in(tmp_path / "run", *SMALL, "steps=5", "probe.snapshot.every=2", on)
    assert len(list((folder / "snapshot").iterdir())) == 4
    assert all(kept(folder, step) for step in (0, 2, 4, 5))
    ends = run_in(tmp_path / "ends", *SMALL, "steps=3")
    assert len(list((ends / "snapshot").iterdir())) == 2


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_a_snapshot_is_the_network_with_batch_norm(tmp_path: Path, dtype: str) -> None:
    """Weights and buffers are the checkpoint's bit for bit, in whatever dtype they are kept."""
    folder = run_in(tmp_path / "run", *CONV, "steps=3", f"probe.snapshot.dtype={dtype}")
    last = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    found = kept(folder, 3)
    assert found.keys() == last.keys()
    for name, entry in last.items():
        assert torch.equal(found[name].to(entry.dtype), entry), name


def test_norm_and_distance_are_those_of_the_files(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=4", "probe.snapshot.every=1", "precision=fp64")
    frame = pd.read_csv(folder / "metrics.csv")
    path = [flat(kept(folder, step)) for step in range(5)]
    assert frame["snapshot_norm"].tolist() == pytest.approx([w.norm().item() for w in path], rel=1e-12)
    assert frame["snapshot_distance"].tolist() == pytest.approx([(w - path[0]).norm().item() for w in path], rel=1e-12)
    model = MLP((5,), 1, width=1, depth=3, base_width=5)
    model.load_state_dict(kept(folder, 0))


def test_the_start_outlives_a_stop(tmp_path: Path, stopped_at: Callable[..., Any]) -> None:
    more = [*SMALL, "steps=6", "probe.snapshot.every=1"]
    whole = run_in(tmp_path / "whole", *more)
    with stopped_at(2):
        run_in(tmp_path / "cut", *more)
    run_in(tmp_path / "cut", *more)
    assert (whole / "metrics.csv").read_bytes() == (tmp_path / "cut" / "metrics.csv").read_bytes()
    for step in range(7):
        assert torch.equal(flat(kept(whole, step)), flat(kept(tmp_path / "cut", step)))


def test_keys_are_those_of_the_state_dict() -> None:
    """Also of a network that shares a weight, freezes one, and has a buffer that it does not save."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model[2].bias.requires_grad_(False)
    model.register_buffer("unsaved", torch.zeros(2), persistent=False)
    loss = BatchLoss(model, nn.MSELoss(), torch.randn(4, 3), torch.randn(4, 3))
    state = own_state(loss)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(entry, state[key]) for key, entry in model.state_dict().items())
    assert unsaved(loss).keys() == {"unsaved"}
    with torch.no_grad():
        model[0].bias.add_(1)
    assert not torch.equal(state["0.bias"], model[0].bias)  # copies


def test_it_is_kept_once_for_the_batch(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"probe\.snapshot: on should list batch"):
        run_in(tmp_path / "run", *SMALL, "steps=1", "probe.snapshot.on=[heldout]")
