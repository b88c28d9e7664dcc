"""The trace probe against dense traces and norms."""

from pathlib import Path

import dense_oracle as dense
import pandas as pd
import pytest
import torch

from runner.errors import BadInput

RUN = ["probe=trace", "steps=1", "log_every=1"]
NUMBERS = ("", "_se", "_frobenius", "_frobenius_se")


def test_within_its_error_of_the_sum_of_the_eigenvalues(tmp_path: Path) -> None:
    options = ["dataset.size=40", "arch.base_width=10", "probe.trace.products=90"]
    folder = dense.run_in(tmp_path / "run", *RUN, *options)
    metrics = pd.read_csv(folder / "metrics.csv")
    names = [f"trace_{matrix}{number}" for matrix in ("H", "G", "H_r") for number in NUMBERS]
    assert list(metrics.columns[9:]) == names
    for step, at in ((0, None), (1, folder)):
        truth, row = dense.matrices(at, *options[:2]), metrics.iloc[step]
        for matrix in ("H", "G", "H_r"):
            norm = torch.linalg.matrix_norm(truth[matrix])
            for number, exact in (("", truth[matrix].trace()), ("_frobenius", norm)):
                value, error = row[f"trace_{matrix}{number}"], row[f"trace_{matrix}{number}_se"]
                assert error > 0
                assert abs(value - exact.item()) <= 4 * error


def test_exact_with_as_many_products_as_weights(tmp_path: Path) -> None:
    folder = dense.run_in(tmp_path / "run", *RUN, "probe.trace.products=100", "probe.trace.matrix=[H_r,H]")
    row, truth = pd.read_csv(folder / "metrics.csv").iloc[0], dense.matrices(None)
    assert list(row.index[9:]) == [f"trace_{matrix}{number}" for matrix in ("H_r", "H") for number in NUMBERS]
    for matrix in ("H", "H_r"):
        assert row[f"trace_{matrix}"] == pytest.approx(truth[matrix].trace().item(), rel=1e-10)
        norm = torch.linalg.matrix_norm(truth[matrix]).item()
        assert row[f"trace_{matrix}_frobenius"] == pytest.approx(norm, rel=1e-10)
        assert row[f"trace_{matrix}_se"] == row[f"trace_{matrix}_frobenius_se"] == 0


@pytest.mark.parametrize("override", ["matrix=[]", "matrix=[H,H]", "products=5"])
def test_refusals(tmp_path: Path, override: str) -> None:
    name = override.split("=")[0]
    with pytest.raises(BadInput, match=rf"probe\.trace.*{name} should"):
        dense.run_in(tmp_path / "run", *RUN, f"probe.trace.{override}")
