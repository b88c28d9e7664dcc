"""The dense matrices against torch's own double differentiation, and counts against ranks that are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.func import functional_call

import runner
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.dense import matrices
from runner.errors import BadInput

TINY = ["dataset.size=12", "dataset.dim=4", "arch.base_width=3", "device=cpu"]


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, "probe=hessian", f"hydra.run.dir={folder}"])


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_matrices_of_a_convolutional_network(norm: str) -> None:
    """H by torch's own function over a flat vector; G and H_r by their sums over the stacked outputs of the batch."""
    torch.manual_seed(0)
    layers = {"batch": nn.BatchNorm2d(2), "group": nn.GroupNorm(2, 2)}
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), layers[norm], nn.Softplus(), nn.Conv2d(2, 1, 2), nn.Flatten(), nn.Linear(1, 2)
    ).double()
    inputs, targets = torch.randn(5, 1, 4, 4).double(), torch.tensor([0, 1, 0, 0, 1])
    named = {n: p.detach() for n, p in net.named_parameters()}
    sizes = [p.numel() for p in named.values()]

    def outputs(w: torch.Tensor) -> torch.Tensor:
        parts = {n: part.view_as(named[n]) for n, part in zip(named, w.split(sizes), strict=True)}
        buffers = {n: b.clone() for n, b in net.named_buffers()}
        return functional_call(net, {**parts, **buffers}, (inputs,))

    w = torch.cat([p.flatten() for p in named.values()])
    H = torch.autograd.functional.hessian(lambda w: torch.nn.functional.cross_entropy(outputs(w), targets), w)
    J = torch.autograd.functional.jacobian(outputs, w).flatten(0, 1)
    S = torch.autograd.functional.hessian(
        lambda F: torch.nn.functional.cross_entropy(F.view(5, 2), targets), outputs(w).flatten()
    )
    found = matrices(BatchLoss(net, torch.nn.CrossEntropyLoss(), inputs, targets), ("H", "G", "H_r"))
    for matrix, expected in {"H": H, "G": J.T @ S @ J, "H_r": H - J.T @ S @ J}.items():
        assert torch.allclose(found[matrix], expected, rtol=1e-9, atol=1e-11)  # type: ignore[index]


def test_counts_of_linear_regression(tmp_path: Path) -> None:
    """One weight layer, L = |Xw - y|^2 / 2N: H = G = X'X/N with the rank of X, 5 samples in 8 dimensions; H_r = 0."""
    folder = run_in(tmp_path / "run", "dataset.size=5", "dataset.dim=8", "arch.depth=1", "steps=1")
    row, values = pd.read_csv(folder / "metrics.csv").iloc[0], pd.read_csv(folder / "hessian.csv")
    for matrix in ("H", "G"):
        counts = [row[f"hessian_{matrix}_{name}"] for name in ("positive", "zero", "negative")]
        assert counts == [5, 3, 0]
    assert row["hessian_H_r_largest"] == pytest.approx(0, abs=1e-15)
    found = values[(values["matrix"] == "H") & (values["step"] == 0)]
    assert found["index"].tolist() == list(range(8))
    assert found["value"].is_monotonic_increasing
    assert found["value"].sum() == pytest.approx(1 / 5 * 5, rel=1e-6)  # tr X'X/N with inputs of unit norm


def test_matrices_are_kept_on_request(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *TINY, "arch.depth=2", "steps=1", "probe.hessian.save=true")
    values = pd.read_csv(folder / "hessian.csv")
    for matrix in ("H", "G", "H_r"):
        kept = np.load(folder / "hessian" / f"{matrix}-step1.npy")
        mine = values[(values["matrix"] == matrix) & (values["step"] == 1)]["value"]
        assert mine.to_numpy() == pytest.approx(np.linalg.eigvalsh(kept), abs=1e-12)
    assert np.linalg.eigvalsh(np.load(folder / "hessian" / "G-step1.npy")).min() > -1e-15


@pytest.mark.parametrize("limit", [500, 1])
def test_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """At once, or where they are large one after the other; the matrices have their replica's number."""
    monkeypatch.setattr("runner.probe.hessian.SIDE_BY_SIDE_UP_TO", limit)
    setting = [*TINY, "precision=fp64", "steps=1", "probe.hessian.save=true"]
    folder = run_in(tmp_path / "together", *setting, "replicas=3")
    alone = run_in(tmp_path / "alone", *setting, "seed=2")
    metrics, own = pd.read_csv(folder / "metrics.csv"), pd.read_csv(alone / "metrics.csv")
    pd.testing.assert_frame_equal(
        metrics[metrics["replica"] == 2].reset_index(drop=True).assign(replica=0), own, rtol=1e-9, atol=1e-13
    )
    values, mine = pd.read_csv(folder / "hessian.csv"), pd.read_csv(alone / "hessian.csv")
    chosen = values[values["replica"] == 2].reset_index(drop=True)["value"]
    assert chosen.to_numpy() == pytest.approx(mine["value"].to_numpy(), abs=1e-12)
    kept = [np.load(path) for path in (folder / "hessian/H-step0-replica2.npy", alone / "hessian/H-step0.npy")]
    assert kept[0] == pytest.approx(kept[1], abs=1e-12)


def test_too_large_is_refused_with_what_it_would_need(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"probe\.hessian: .* 17,550 weights need 11.5 GiB, and memory_gib is 4"):
        run_in(tmp_path / "run", "steps=1", "dataset.size=10")
