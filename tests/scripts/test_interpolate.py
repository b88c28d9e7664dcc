"""The line between two networks, against losses computed here from the snapshots with plain tensors."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import runner
from runner.dataset.blobs import blobs

BLOBS = ["dataset=blobs", "dataset.size=30", "dataset.test_size=7", "arch.base_width=4", "device=cpu", "precision=fp64"]
SNAPSHOTS = ["probe=snapshot", "probe.snapshot.every=2", "steps=4"]
COLUMNS = ["step", "alpha", "train_loss", "train_error", "test_loss", "test_error", "distance"]


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*BLOBS, *SNAPSHOTS, *overrides, f"hydra.run.dir={folder}"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return run_in(folder / "a", "seed=1"), run_in(folder / "b", "seed=2", "batch_size=10")


def weights(run: Path, step: int) -> dict[str, Tensor]:
    (path,) = (run / "snapshot").glob(f"*-step{step}.pt")
    return torch.load(path, weights_only=True)["model"]


def between(a: dict[str, Tensor], b: dict[str, Tensor], alpha: float) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, bias) of each layer."""
    values = [(1 - alpha) * a[name] + alpha * b[name] for name in a if "running" not in name and "num_" not in name]
    return zip(values[::2], values[1::2], strict=True)


def data(part: str) -> tuple[Tensor, Tensor]:
    both = blobs(size=30, test_size=7, centres=[[1.0, 1.0], [-1.0, -1.0]], std=0.3, seed=0)
    split = both.train if part == "train" else both.test
    assert split is not None
    return split.inputs.double(), split.labels


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(
        torch.cat([(a[name] - b[name]).flatten() for name in a if "." in name and "running" not in name]).norm()
    )


def test_numbers_between_two_runs(pair: tuple[Path, Path], tmp_path: Path, call: Callable[..., list[str]]) -> None:
    out = tmp_path / "new" / "line.csv"
    said = call("interpolate", *pair, "--points", 5, "--range", -0.5, 1.5, "--out", out)
    assert said == [str(out), str(out.with_suffix(".png"))]
    frame = pd.read_csv(out)
    assert list(frame.columns) == COLUMNS
    assert frame["step"].tolist() == [step for step in (0, 2, 4) for _ in range(5)]
    assert frame["alpha"].tolist() == [-0.5, 0.0, 0.5, 1.0, 1.5] * 3
    for row in frame.itertuples():
        a, b = (weights(run, int(row.step)) for run in pair)
        for part, loss, error in (("train", row.train_loss, row.train_error), ("test", row.test_loss, row.test_error)):
            (first, second, head), (x, y) = between(a, b, row.alpha), data(part)
            outputs = F.linear(F.linear(F.linear(x, *first).relu(), *second).relu(), *head)
            assert loss == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-12)
            assert error == pytest.approx((outputs.argmax(1) != y).double().mean().item(), abs=1e-12)
        assert row.distance == pytest.approx(apart(a, b), rel=1e-12)
    assert 20_000 < out.with_suffix(".png").stat().st_size < 1_000_000


def test_ends_are_the_runs_own(pair: tuple[Path, Path], tmp_path: Path, call: Callable[..., list[str]]) -> None:
    call("interpolate", *pair, "--points", 2, "--range", 0, 1, "--out", tmp_path / "line.csv")
    frame = pd.read_csv(tmp_path / "line.csv")
    own = pd.read_csv(pair[0] / "metrics.csv").set_index("step")  # full batch: the same loss
    assert frame[frame["alpha"] == 0]["train_loss"].tolist() == pytest.approx(own["train_loss"][[0, 2, 4]].tolist())
    assert frame["test_loss"].iloc[-2:].tolist() == pytest.approx(
        [pd.read_csv(run / "metrics.csv")["test_loss"].iloc[-1] for run in pair]
    )


def test_from_a_runs_start_to_its_end(pair: tuple[Path, Path], call: Callable[..., list[str]]) -> None:
    table, picture = call("interpolate", pair[1], "--points", 3)
    assert Path(table) == pair[1].parent / "b-start-to-end.csv"
    frame = pd.read_csv(table)
    assert frame["step"].tolist() == [4] * 5
    assert frame["alpha"].tolist() == [-0.25, 0.0, 0.5, 1.0, 1.25]  # the ends are always there
    assert frame["distance"][0] == pytest.approx(apart(weights(pair[1], 0), weights(pair[1], 4)), rel=1e-12)
    assert Path(picture).stat().st_size > 10_000


def test_batch_norm_gathers_its_statistics_anew(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    """Training losses are means over parts of the batch size, every third sample each; the test loss uses the mean of
    the parts' means and of their unbiased variances."""
    more = ["arch.norm=batch", "arch.depth=2", "arch.bias=true", "batch_size=10"]
    runs = [run_in(tmp_path / name, *more, f"seed={name}") for name in ("1", "2")]
    call("interpolate", *runs, "--points", 3, "--range", 0, 1, "--out", tmp_path / "line.csv")
    frame = pd.read_csv(tmp_path / "line.csv").set_index(["step", "alpha"])
    a, b = (weights(run, 4) for run in runs)
    for alpha in (0.0, 0.5, 1.0):
        first, norm, head = between(a, b, alpha)
        x, y = data("train")
        parts = [F.linear(x[i::3], *first) for i in range(3)]
        losses = [
            F.cross_entropy(F.linear(F.batch_norm(h, None, None, *norm, training=True).relu(), *head), y[i::3])
            for i, h in enumerate(parts)
        ]
        assert frame["train_loss"][4, alpha] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-10)
        mean, var = (torch.stack([of(h) for h in parts]).mean(0) for of in (lambda h: h.mean(0), lambda h: h.var(0)))
        x, y = data("test")
        outputs = F.linear(F.batch_norm(F.linear(x, *first), mean, var, *norm).relu(), *head)
        assert frame["test_loss"][4, alpha] == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-10)


def test_replicas_are_networks_to_walk_between(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    run = run_in(tmp_path / "run", "seed=1", "replicas=2", "dataset.test_size=0")
    table, _ = call("interpolate", run, run, "--replicas", 0, 1, "--points", 2, "--range", 0, 1)
    assert Path(table).name == "run-to-run-replica1.csv"
    frame = pd.read_csv(table)
    own = pd.read_csv(run / "metrics.csv").set_index(["step", "replica"])["train_loss"]
    expected = [own[step, replica] for step in (0, 2, 4) for replica in (0, 1)]
    assert frame["train_loss"].tolist() == pytest.approx(expected, rel=1e-12)
    assert frame["test_loss"].isna().all()


def test_a_part_of_the_samples(pair: tuple[Path, Path], tmp_path: Path, call: Callable[..., list[str]]) -> None:
    call("interpolate", *pair, "--points", 2, "--samples", 3, "--out", tmp_path / "line.csv")
    frame = pd.read_csv(tmp_path / "line.csv")
    for part in ("train", "test"):  # errors are thirds
        assert (frame[f"{part}_error"] * 3 % 1).isin([0.0, 1.0]).all()


def test_bad_input(pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    a, b = pair
    (tmp_path / "empty").mkdir()
    assert "should be a run's folder, found no .hydra/config.yaml" in refused("interpolate", tmp_path / "empty", b)
    assert "from 0 or less to 1 or more, found 0.5 1" in refused("interpolate", a, b, "--range", 0.5, 1)
    assert "at least 2, found 1 and 1000" in refused("interpolate", a, b, "--points", 1)
    assert "should end in .csv" in refused("interpolate", a, b, "--out", tmp_path / "x.png")
    assert "at the same steps, found 0 2 4 in" in refused("interpolate", a, b, "--replicas", 0, 1)
    other = run_in(tmp_path / "other", "arch.depth=2", "dataset.std=0.5")
    assert "found different values of arch, dataset in" in refused("interpolate", a, other)
    bare = runner.run([*BLOBS, "probe=[]", "steps=1", f"hydra.run.dir={tmp_path / 'bare'}"])
    assert "at least two snapshots (probe=snapshot), found 0" in refused("interpolate", bare)
    (found,) = (other / "snapshot").glob("*step2.pt")
    found.write_bytes(b"nothing")
    assert "should be a snapshot, and cannot be read" in refused("interpolate", other, other)
