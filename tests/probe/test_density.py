"""The density probe against dense moments, and its table."""

from pathlib import Path

import dense_oracle as dense
import pandas as pd
import pytest
import torch

from runner.errors import BadInput

RUN = ["probe=density", "steps=1", "log_every=1"]


@pytest.mark.parametrize("matrix", ["H", "G", "H_r"])
def test_nodes_weights_and_moments(tmp_path: Path, matrix: str) -> None:
    options = [f"probe.density.matrix={matrix}", "probe.density.probes=40", "probe.density.steps=8"]
    folder = dense.run_in(tmp_path / "run", *RUN, *options)
    table, metrics = pd.read_csv(folder / "density.csv"), pd.read_csv(folder / "metrics.csv")
    assert list(table.columns) == ["step", "replica", "vector", "index", "node", "weight", "on"]
    sums = table.groupby(["step", "vector"])["weight"].agg(["sum", "size"])
    assert sums["sum"].to_numpy() == pytest.approx(1, abs=1e-12)
    assert (sums["size"] == 8).all()
    for step, at in ((0, None), (1, folder)):
        values, row = torch.linalg.eigvalsh(dense.matrices(at)[matrix]), metrics.iloc[step]
        rows = table[table["step"] == step]
        for name, power in (("mean", 1), ("second", 2)):
            draws = (rows["weight"] * rows["node"] ** power).groupby(rows["vector"]).sum()
            assert row[f"density_{name}"] == pytest.approx(draws.mean(), rel=1e-12)
            assert row[f"density_{name}_se"] == pytest.approx(draws.std() / 40**0.5, rel=1e-12)
            assert abs(row[f"density_{name}"] - values.pow(power).mean().item()) <= 5 * row[f"density_{name}_se"]
        share, slack = (values < -1e-12).double().mean().item(), 4 * row["density_negative_se"]
        assert row["density_negative_low"] - slack <= share <= row["density_negative_high"] + slack
        assert row["density_products"] == 320
        assert values.min() - 1e-12 <= rows["node"].min()
        assert rows["node"].max() <= values.max() + 1e-12


def test_the_space_ends_early(tmp_path: Path) -> None:
    """With 12 samples G has 12 eigenvalues and zero: 13 nodes (rounding may
    add one without weight), and then the shares are exact. H has n of them."""
    for matrix, nodes in (("G", 14), ("H", 80)):
        folder = dense.run_in(tmp_path / matrix, *RUN, f"probe.density.matrix={matrix}", "probe.density.steps=1000")
        table, metrics = pd.read_csv(folder / "density.csv"), pd.read_csv(folder / "metrics.csv")
        assert (table.groupby(["step", "vector"]).size() <= nodes).all()
        assert (metrics["density_products"] == table.groupby("step").size()).all()
        assert (metrics["density_negative_low"] == metrics["density_negative_high"]).all()
        values = torch.linalg.eigvalsh(dense.matrices(None)[matrix])
        top = table[table["step"] == 0].groupby("vector")["node"].max()
        assert top.to_numpy() == pytest.approx(values[-1].item(), rel=1e-10)


@pytest.mark.parametrize("override", ["probes=1", "steps=0"])
def test_refusals(tmp_path: Path, override: str) -> None:
    name = override.split("=")[0]
    with pytest.raises(BadInput, match=rf"probe\.density.*{name} should be"):
        dense.run_in(tmp_path / "run", *RUN, f"probe.density.{override}")
