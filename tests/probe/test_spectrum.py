"""The spectrum probe against dense eigenvalues, along training, cut off and resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dense_oracle as dense
import pandas as pd
import pytest
import torch

import runner
from runner.errors import BadInput

RUN = ["probe=spectrum", "probe.spectrum.tol=1e-8", "steps=3", "log_every=1"]


def ends(table: pd.DataFrame, step: int) -> tuple[list[float], list[float]]:
    rows = table[table["step"] == step]
    return tuple(rows[rows["end"] == end]["value"].tolist() for end in ("largest", "smallest"))  # type: ignore[return-value]


@pytest.mark.parametrize("matrix", ["H", "G", "H_r"])
def test_against_dense_eigenvalues(tmp_path: Path, matrix: str) -> None:
    folder = dense.run_in(tmp_path / "run", *RUN, f"probe.spectrum.matrix={matrix}")
    table, metrics = pd.read_csv(folder / "spectrum.csv"), pd.read_csv(folder / "metrics.csv")
    assert list(table.columns) == ["step", "replica", "index", "value", "end", "residual", "on"]
    for step, at in ((0, None), (3, folder)):
        values = torch.linalg.eigvalsh(dense.matrices(at)[matrix])
        scale = values.abs().max().item()
        largest, smallest = ends(table, step)
        assert largest == pytest.approx(values.flip(0)[:5].tolist(), abs=1e-8 * scale)
        assert smallest == pytest.approx(values[:5].tolist(), abs=1e-8 * scale)
        assert metrics["spectrum_largest"][step] == largest[0]
        assert metrics["spectrum_smallest"][step] == smallest[0]
        assert metrics["spectrum_residual"][step] == table[table["step"] == step]["residual"].max() <= 1e-8 * scale
    assert (metrics["spectrum_products"] <= dense.matrices(None)["n"]).all()


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_three_samples_of_one_output_give_three_eigenvalues(tmp_path: Path, dtype: str) -> None:
    """G = J'J / N has the rank of J; copies of them would be ghosts."""
    options = ["dataset.size=3", "probe.spectrum.matrix=G", "probe.spectrum.k=6", f"probe.spectrum.dtype={dtype}"]
    folder = dense.run_in(tmp_path / "run", *RUN, *options)
    table = pd.read_csv(folder / "spectrum.csv")
    for step in range(4):
        largest, smallest = ends(table, step)
        zero = (1e-12 if dtype == "fp64" else 1e-5) * largest[0]
        assert sum(value > zero for value in largest) == 3
        assert max(map(abs, [*largest[3:], *smallest])) <= zero


def test_fewer_weights_than_sought(tmp_path: Path) -> None:
    folder = dense.run_in(tmp_path / "run", *RUN, "probe.spectrum.k=100")
    values = torch.linalg.eigvalsh(dense.matrices(None)["H"]).tolist()
    largest, smallest = ends(pd.read_csv(folder / "spectrum.csv"), 0)
    assert smallest == pytest.approx(values, abs=1e-12)
    assert largest == pytest.approx(values[::-1], abs=1e-12)


def test_streamed_over_the_data_set(tmp_path: Path) -> None:
    """In batches of 5, 5 and 2."""
    more = ["batch_size=5", "probe.spectrum.on=[dataset]", "probe.spectrum.matrix=H_r", "steps=0"]
    folder = dense.run_in(tmp_path / "run", *RUN, *more)
    values = torch.linalg.eigvalsh(dense.matrices(None)["H_r"])
    assert ends(pd.read_csv(folder / "spectrum.csv"), 0)[0] == pytest.approx(values.flip(0)[:5].tolist(), abs=1e-10)


def test_a_warm_start_gives_the_same_values_for_fewer_products(tmp_path: Path) -> None:
    more = ["dataset.size=100", "arch.base_width=25", "probe.spectrum.k=3", "probe.spectrum.tol=1e-4", "steps=8"]
    warm = dense.run_in(tmp_path / "warm", *RUN, *more)
    alone = ["probe.spectrum.every=null", "probe.spectrum.ends=false", "probe.spectrum.at=[8]"]
    cold = dense.run_in(tmp_path / "cold", *RUN, *more, *alone)
    one, other = (pd.read_csv(folder / "metrics.csv").iloc[8] for folder in (warm, cold))
    assert one["spectrum_products"] < 0.8 * other["spectrum_products"]
    tables = [pd.read_csv(folder / "spectrum.csv") for folder in (warm, cold)]
    for found, expected in zip(ends(tables[0], 8), ends(tables[1], 8), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("at", [0, 2])
def test_a_stopped_run_continues_to_the_same_bytes(tmp_path: Path, stopped_at: Callable[..., Any], at: int) -> None:
    """So the starts live in the checkpoint, for each place its own."""
    more = ["batch_size=4", "probe.spectrum.on=[batch,heldout]", "probe.spectrum.tol=1e-2", "steps=5"]
    whole = dense.run_in(tmp_path / "whole", *RUN, *more)
    with stopped_at(at):
        dense.run_in(tmp_path / "cut", *RUN, *more)
    starts = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["probes"]["spectrum"]["starts"]
    assert set(starts) == {"batch/0", "heldout/0"}
    dense.run_in(tmp_path / "cut", *RUN, *more)
    for name in ("metrics.csv", "spectrum.csv"):
        assert (whole / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("k=0", "k should be at least 1, found 0"),
        ("tol=0", "tol should be a number > 0"),
        ("max_iterations=9", "max_iterations should be at least 10"),
    ],
)
def test_refusals(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=rf"probe\.spectrum.*{message}"):
        runner.run(["probe=spectrum", f"probe.spectrum.{override}", f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()
