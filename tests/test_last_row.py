"""A network's last row has the test set's loss and error, wherever it ends: those that an evaluation there gives."""

from pathlib import Path

import pandas as pd
import pytest

import runner

IMAGES = [
    "dataset=random_images", "dataset.size=50", "dataset.test_size=20", "dataset.shape=[3,8,8]", "dataset.classes=4",
    "batch_size=12", "device=cpu", "log_every=1", "probe=[split]",
]  # fmt: skip
RESNET = [*IMAGES, "arch=resnet50", "arch.blocks=1", "arch.base_width=4"]  # batch norm: running statistics
MLP = [*IMAGES, "arch.base_width=8", "arch.depth=3", "replicas=3"]
ENDS = {
    "until, batch norm": [*RESNET, "steps=12", "until.grad_norm=2"],
    "until, replicas": [*MLP, "steps=60", "until.grad_norm=1.2"],
    "until, at the end of an epoch": [
        "dataset=blobs",
        "dataset.size=20",
        "dataset.test_size=9",
        "batch_size=8",
        "arch.base_width=3",
        "init=he",
        "seed=3",
        "precision=fp64",
        "epochs=20",
        "until.grad_norm=0.25",
        "device=cpu",
        "probe=[split]",
        "log_every=1",
    ],
    "diverged": [*RESNET, "steps=12", "optimizer.lr=1e12"],
}


def rows(folder: Path, *overrides: str) -> pd.DataFrame:
    return pd.read_csv(runner.run([*overrides, f"hydra.run.dir={folder}"]) / "metrics.csv")


@pytest.mark.parametrize("name", ENDS)
def test_it_is_evaluated(tmp_path: Path, name: str) -> None:
    found = rows(tmp_path / "seldom", *ENDS[name], "eval_every=1000")
    expected = rows(tmp_path / "always", *ENDS[name], "eval_every=1")
    last = found.groupby("replica").tail(1)
    assert (last["step"] > 0).all()
    assert found.drop(last.index)["test_loss"].isna().all()
    pd.testing.assert_frame_equal(last, expected.loc[last.index])
    epochs = pd.read_csv(tmp_path / "seldom" / "epochs.csv").groupby("replica").tail(1)
    tested = ["replica", "epoch", "test_loss", "test_error"]
    pd.testing.assert_frame_equal(last[tested].reset_index(drop=True), epochs[tested].reset_index(drop=True))
    other = [column for column in found if not column.startswith("test_")]
    pd.testing.assert_frame_equal(found[other], expected[other])  # and nothing else has changed
