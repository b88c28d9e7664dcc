"""The alignment probe against dense eigenvectors."""

from pathlib import Path

import dense_oracle as dense
import pandas as pd
import pytest
import torch

from runner.errors import BadInput

RUN = ["probe=alignment", "probe.alignment.tol=1e-9", "steps=2", "log_every=1"]


@pytest.mark.parametrize("matrix", ["H", "G", "H_r"])
def test_against_dense_eigenvectors(tmp_path: Path, matrix: str) -> None:
    options = ["probe.alignment.k=[1,3,12]", f"probe.alignment.matrix={matrix}"]
    folder = dense.run_in(tmp_path / "run", *RUN, *options)
    metrics = pd.read_csv(folder / "metrics.csv")
    own = [f"alignment_{name}_k{k}" for k in (1, 3, 12) for name in ("share", "along")]
    assert list(metrics.columns[9:]) == [*own, *(f"alignment_{name}" for name in ("curvature", "residual", "products"))]
    for step, at in ((0, None), (2, folder)):
        found = dense.matrices(at)
        values, Q = torch.linalg.eigh(found[matrix])
        squares, row = (Q.T @ found["g"]).square(), metrics.iloc[step]
        for k in (1, 3, 12):
            expected = squares[-k:].sum() / squares.sum(), values[-k:] @ squares[-k:]
            assert row[f"alignment_share_k{k}"] == pytest.approx(expected[0].item(), rel=1e-6)
            assert row[f"alignment_along_k{k}"] == pytest.approx(expected[1].item(), rel=1e-6)
        assert row["alignment_curvature"] == pytest.approx((values @ squares).item(), rel=1e-9)
        assert row["alignment_residual"] <= 1e-9 * values.abs().max().item()


def test_all_of_g_lies_in_the_range_of_g(tmp_path: Path) -> None:
    """g = J'r / N, so with as many eigenvectors of G as samples nothing is left out; one number k has plain columns."""
    folder = dense.run_in(tmp_path / "run", *RUN, "probe.alignment.k=12", "probe.alignment.matrix=G")
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["alignment_share"].to_numpy() == pytest.approx(1, abs=1e-9)
    assert metrics["alignment_along"].to_numpy() == pytest.approx(metrics["alignment_curvature"].to_numpy(), rel=1e-9)


@pytest.mark.parametrize("k", ["0", "[]", "[2,2]", "[1,0]"])
def test_refusals(tmp_path: Path, k: str) -> None:
    with pytest.raises(BadInput, match=r"probe\.alignment.*k should be a number of at least 1, or a list"):
        dense.run_in(tmp_path / "run", *RUN, f"probe.alignment.k={k}")
