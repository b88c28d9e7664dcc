"""The products probe against dense matrices."""

from pathlib import Path

import dense_oracle as dense
import pandas as pd
import pytest


def test_norms_and_cosines(tmp_path: Path) -> None:
    folder = dense.run_in(tmp_path / "run", "probe=products", "steps=2", "log_every=1")
    metrics = pd.read_csv(folder / "metrics.csv")
    for step, at in ((0, None), (2, folder)):
        truth, row = dense.matrices(at), metrics.iloc[step]
        g = truth["g"]
        for matrix in ("H", "G", "H_r"):
            product = truth[matrix] @ g
            assert row[f"products_norm_{matrix}"] == pytest.approx(product.norm().item(), rel=1e-9)
            cosine = (g @ product / g.norm() / product.norm()).item()
            assert row[f"products_cos_{matrix}"] == pytest.approx(cosine, rel=1e-9)
    assert (metrics["products_cos_G"] > 0).all()
