"""Compiled training: the same path to rounding, with the same random draws."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import runner
from runner.errors import BadInput

COLUMNS = ["train_loss", "grad_norm", "fd_gHg", "split_gHg", "split_gGg", "split_gHrg"]
CONV = [
    *("dataset=random_images", "dataset.size=50", "dataset.shape=[3,8,8]", "dataset.classes=4", "batch_size=25"),
    *("arch=resnet50", "arch.blocks=1", "arch.base_width=4", "steps=8", "log_every=1", "eval_every=2"),
]
DROPOUT = ["dataset.size=64", "batch_size=16", f"arch._target_={__name__}.with_dropout", "arch=custom", "steps=12"]


def with_dropout(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    layers = torch.nn.Linear(input_shape[0], 20), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(20, outputs)
    return torch.nn.Sequential(*layers)


def path(folder: Path, *overrides: str) -> pd.DataFrame:
    run = runner.run([*overrides, "device=cpu", "probe=[fd,split]", f"hydra.run.dir={folder}"])
    return pd.read_csv(run / "metrics.csv")[COLUMNS]


@pytest.mark.parametrize(
    ("setting", "precision", "tolerance"),
    [
        pytest.param(DROPOUT, "fp64", 1e-11, id="dropout"),
        pytest.param(CONV, "fp32", 1e-4, id="conv", marks=pytest.mark.slow),
        pytest.param(CONV, "fp64", 1e-10, id="conv in fp64", marks=pytest.mark.slow),
    ],
)
def test_the_same_path(tmp_path: Path, setting: list[str], precision: str, tolerance: float) -> None:
    """gHrg is held against the scale of its parts: |gGg| + |gHrg|."""
    plain, compiled = (path(tmp_path / c, *setting, f"precision={precision}", f"compile={c}") for c in ("no", "yes"))
    scale = plain.abs()
    scale["split_gHrg"] = scale["split_gHg"] = scale["split_gGg"] + scale["split_gHrg"]
    assert ((compiled - plain).abs() / scale).to_numpy().max() < tolerance


@pytest.mark.slow
def test_one_network_after_the_other_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives a piece of code up, without a word, for which it has compiled its limit of different networks."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    for width in (4, 5, 6):
        path(tmp_path / f"{width}", "arch.depth=2", f"arch.base_width={width}", "steps=1", "compile=true")


def test_replicas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="compile should be false with replicas=2"):
        path(tmp_path, "replicas=2", "compile=true")


def test_where_nothing_can_be_compiled_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(BadInput, match=r"compile should be false where .* on cpu, found true: no compiler"):
        path(tmp_path, "compile=true")
