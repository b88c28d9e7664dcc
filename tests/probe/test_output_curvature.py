"""The probe's columns, its table, what it refuses, and the statistics of Theorem 1."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import runner
from runner.arch.mlp import MLP
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.output import own_curvature
from runner.errors import BadInput
from runner.init import Fan, Independent, Law
from runner.probe.output_curvature import OutputCurvature, root_mean_squares

PROBE = "probe=output_curvature"
SMALL = [PROBE, "steps=0", "device=cpu", "precision=fp64", "dataset.size=12", "arch.base_width=6", "arch.depth=3"]
CONV = [
    PROBE, "dataset=random_images", "dataset.size=8", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50",
    "arch.blocks=1", "arch.base_width=4", "batch_size=4", "steps=0", "device=cpu",
]  # fmt: skip


def test_means_and_samples(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "probe.output_curvature.sample=5", f"hydra.run.dir={tmp_path / 'run'}"])
    table, row = pd.read_csv(folder / "output_curvature.csv"), pd.read_csv(folder / "metrics.csv").iloc[0]
    assert list(table.columns) == ["step", "replica", "sample", "f", "grad_f", "s", "Q", "Q_over_s", "on"]
    assert table["sample"].tolist() == [0, 1, 2, 3, 4]
    for column in ("f", "s", "Q", "Q_over_s"):
        assert row[f"output_curvature_{column}"] == pytest.approx(table[column].mean(), rel=1e-12)
    assert row["output_curvature_Q_std"] == pytest.approx(table["Q"].std(ddof=0), rel=1e-12)
    assert (table["Q"] / table["s"]).to_numpy() == pytest.approx(table["Q_over_s"].to_numpy(), rel=1e-12)
    assert (table["grad_f"] ** 2).to_numpy() == pytest.approx(table["s"].to_numpy(), rel=1e-12)


def test_cross_terms(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "probe.output_curvature.cross=3", f"hydra.run.dir={tmp_path / 'run'}"])
    T = np.load(next((folder / "output_curvature").glob("cross*.npy")))
    assert T.shape == (3, 3, 3)
    assert pd.read_csv(folder / "output_curvature.csv")["Q"][:3].to_numpy() == pytest.approx(np.einsum("iii->i", T))
    row = pd.read_csv(folder / "metrics.csv").iloc[0]
    distinct = [T[i, j, k] for i in range(3) for j in range(3) for k in range(3) if len({i, j, k}) == 3]
    assert row["output_curvature_cross_ijk"] == pytest.approx(np.sqrt(np.mean(np.square(distinct))))


def test_kinds_of_cross_terms() -> None:
    """Each entry is of one kind: their squares, counted, add up to all; and of two samples no three are different."""
    T = torch.zeros(3, 3, 3)
    T[1, 1, 1], T[0, 0, 1], T[1, 0, 1], T[2, 1, 0] = 3.0, 4.0, 5.0, 6.0
    counts = (3, 12, 6, 6)
    expected = [(square / count) ** 0.5 for square, count in zip((9.0, 16.0, 25.0, 36.0), counts, strict=True)]
    assert [float(kind) for kind in root_mean_squares(T) if kind is not None] == pytest.approx(expected)
    assert root_mean_squares(T[:2, :2, :2])[3] is None


def test_a_dead_network_leaves_the_ratio_empty(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "init=normal", "init.std=0", f"hydra.run.dir={tmp_path / 'run'}"])
    row, table = pd.read_csv(folder / "metrics.csv").iloc[0], pd.read_csv(folder / "output_curvature.csv")
    assert row["output_curvature_Q"] == row["output_curvature_s"] == 0
    assert pd.isna(row["output_curvature_Q_over_s"])
    assert table["Q_over_s"].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*CONV], "treat each sample alone, found batch statistics"),
        ([*CONV, "arch.norm=group", "probe.output_curvature.output=4"], "from 0 to 3, found 4"),
        ([*SMALL, "probe.output_curvature.sample=0"], "sample should be at least 1, found 0"),
        ([*SMALL, "probe.output_curvature.cross=1"], "cross should be 0 or at least 2"),
        ([*SMALL, "probe.output_curvature.on=[dataset]"], "on should list some of batch, heldout, sample,"),
    ],
)
def test_refusals(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        runner.run([*options, f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.memory(x)[0][:, -1])


def test_what_cannot_be_taken_sample_by_sample_is_refused_before_the_run() -> None:
    loss = BatchLoss(Recurrent(), nn.MSELoss(), torch.randn(4, 5, 3), torch.zeros(4, 1))
    with pytest.raises(BadInput, match=r"should run under torch\.func\.vmap"):
        OutputCurvature().prepare(loss, 4, 1)


def test_one_of_several_outputs(tmp_path: Path) -> None:
    options = [*CONV, "arch.norm=group", "probe.output_curvature.output=3", "probe.output_curvature.sample=2"]
    folder = runner.run([*options, f"hydra.run.dir={tmp_path / 'run'}"])
    assert (pd.read_csv(folder / "output_curvature.csv")["s"] > 0).all()


def draws(
    width: int, dim: int, law: Law = "normal", fan: Fan = "in", seeds: int = 250
) -> tuple[np.ndarray, np.ndarray]:
    """Q and s of two-weight-layer linear networks on one point of the unit sphere."""
    model = MLP((dim,), 1, base_width=width, depth=2, activation="identity").double()
    x = torch.nn.functional.normalize(torch.arange(1.0, dim + 1.0, dtype=torch.float64)[None])
    init, found = Independent(law, fan=fan), []
    for seed in range(seeds):
        init(model, generator=torch.Generator().manual_seed(seed), width=width, data=lambda: (x, x))
        found.append(own_curvature(BatchLoss(model, nn.MSELoss(), x, torch.zeros(1, 1)), 1))
    return torch.cat([own.Q for own in found]).numpy(), torch.cat([own.s for own in found]).numpy()


@pytest.mark.parametrize("law", ["normal", "uniform", "rademacher"])
def test_theorem_1(law: Law) -> None:
    """E Q = 0; with variance 1/n for all layers Var Q = 4/n; and s tends to 2 |x|^2. Of 250 draws the variance is
    known to about a tenth."""
    for width in (8, 32):
        Q, s = draws(width, width, law)
        assert abs(Q.mean()) < 3 * Q.std() / 250**0.5
        assert Q.var() * width == pytest.approx(4, rel=0.3)
        assert s.mean() == pytest.approx(2, rel=0.05)


def test_theorem_1_needs_one_variance() -> None:
    """Two weight layers and a fixed input dimension: Var Q = 4/d with variance 1/fan_in, whatever the width, and 4/n
    with variance 1/n."""
    assert draws(32, 4)[0].var() == pytest.approx(4 / 4, rel=0.3)
    assert draws(32, 4, fan="width")[0].var() == pytest.approx(4 / 32, rel=0.3)
