"""The probe's columns and table, and what it makes of zeros."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import runner
from runner.probe.layer_norms import mean_log, mean_log_ratio, median

DEEP = ["probe=layer_norms", "steps=0", "device=cpu", "precision=fp64", "dataset.size=40", "arch.base_width=16"]


def test_logs_leave_zeros_out_and_medians_do_not() -> None:
    sizes, others = torch.tensor([0.0, 1.0, 4.0, 16.0]), torch.tensor([1.0, 0.0, 2.0, 2.0])
    assert mean_log(sizes) == pytest.approx(np.log(4))
    assert median(sizes) == 2.5
    assert mean_log_ratio(sizes, others) == pytest.approx(np.log(4))
    assert mean_log(torch.zeros(3)) is None
    assert median(torch.zeros(3)) == 0
    assert mean_log(None) is None
    assert median(None) is None
    assert mean_log_ratio(sizes, torch.ones(3)) is None


def test_rows_are_layers_and_columns_their_ends(tmp_path: Path) -> None:
    folder = runner.run([*DEEP, "arch.depth=5", f"hydra.run.dir={tmp_path / 'run'}"])
    table, row = pd.read_csv(folder / "layer_norms.csv"), pd.read_csv(folder / "metrics.csv").iloc[0]
    assert table["layer"].tolist() == ["body.0.0", "body.1.0", "body.2.0", "body.3.0", "head"]
    assert table["depth"].tolist() == [0, 1, 2, 3, 4]
    assert table["gradient"].pow(2).sum() ** 0.5 == pytest.approx(row["grad_norm"], rel=1e-12)
    first, last = table.iloc[0], table.iloc[-1]
    ratio = np.log(first["gradient"] / last["gradient"])
    assert row["layer_norms_gradient_log_ratio"] == pytest.approx(ratio, rel=1e-10)
    if table["silent"].max() == 0:
        activations = last["activation_log"] - first["activation_log"]
        assert row["layer_norms_activation_log_ratio"] == pytest.approx(activations, rel=1e-10)
    assert row["layer_norms_dead"] == 0
    assert row["layer_norms_dead_units"] == table["dead"][1:].max()


def test_a_chain_keeps_its_sizes_in_closed_form(tmp_path: Path) -> None:
    """Weights -1 or 1 and one unit: every activation is |x| and every signal |dl/df|, so that all logs agree."""
    chain = ["arch.base_width=1", "arch.activation=identity", "init=rademacher", "arch.depth=6", "dataset.dim=1"]
    folder = runner.run([*DEEP, *chain, f"hydra.run.dir={tmp_path / 'run'}"])
    table, row = pd.read_csv(folder / "layer_norms.csv"), pd.read_csv(folder / "metrics.csv").iloc[0]
    assert (table["activation_median"] == 1).all()  # one number on the unit sphere
    assert table["signal_log"].nunique() == 1
    assert table["gradient"].nunique() == 1
    assert (row[[f"layer_norms_{name}_log_ratio" for name in ("activation", "signal", "gradient")]] == 0).all()


def test_a_dead_network_is_told_from_a_dead_branch(tmp_path: Path) -> None:
    dead = runner.run([*DEEP, "init=normal", "init.std=0", f"hydra.run.dir={tmp_path / 'dead'}"])
    row = pd.read_csv(dead / "metrics.csv").iloc[0]
    assert row["layer_norms_dead"] == row["layer_norms_dead_units"] == 1
    ratios = [f"layer_norms_{name}_log_ratio" for name in ("activation", "signal", "gradient")]
    assert row[ratios].isna().all()
    narrow = [*DEEP, "arch.base_width=1", "arch.residual=true", "arch.depth=12", "dataset.dim=8", "dataset.size=8"]
    rows = pd.concat(
        pd.read_csv(runner.run([*narrow, f"seed={seed}", f"hydra.run.dir={tmp_path / str(seed)}"]) / "metrics.csv")
        for seed in range(4)
    )
    branches = rows[rows["layer_norms_dead_units"] == 1]
    assert len(branches)
    assert (branches["layer_norms_dead"] == 0).any()


def test_batch_norm_is_measured_too(tmp_path: Path) -> None:
    folder = runner.run([*DEEP, "arch.norm=batch", "arch.depth=3", f"hydra.run.dir={tmp_path / 'run'}"])
    table = pd.read_csv(folder / "layer_norms.csv")
    assert table["layer"].tolist() == ["body.0.0", "body.0.1", "body.1.0", "body.1.1", "head"]
    assert table.drop(columns=["layer", "on"]).notna().all(axis=None)
