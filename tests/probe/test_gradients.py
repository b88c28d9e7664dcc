"""The gradients probe where there are no pairs; its numbers are checked by tests/test_oracle.py."""

from pathlib import Path

import pandas as pd
import pytest

import runner
from runner.errors import BadInput

SMALL = [
    "arch.base_width=3", "arch.depth=2", "arch.activation=tanh", "dataset.dim=4", "dataset.size=5", "probe=gradients",
    "epochs=2", "log_every=1", "device=cpu",
]  # fmt: skip


def test_a_last_batch_of_one_sample_has_no_cosine(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "batch_size=2", f"hydra.run.dir={tmp_path}"])
    cells = pd.read_csv(folder / "metrics.csv", keep_default_na=False, dtype=str)["gradients_cosine"].tolist()
    assert [index for index, cell in enumerate(cells) if not cell] == [2, 5]
    assert all(-1.0001 <= float(cells[index]) <= 1.0001 for index in (0, 1, 3, 4, 6))


def test_batches_of_one_sample_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^probe.gradients: batch_size should be at least 2 .*, found 1$"):
        runner.run([*SMALL, "batch_size=1", f"hydra.run.dir={tmp_path}"])


def test_two_devices_share_the_least_batch_that_there_can_be(tmp_path: Path) -> None:
    """Each has one of its two samples, and all of it for this probe."""
    alone, both = (
        runner.run([*SMALL, "dataset.size=4", "batch_size=2", f"devices={n}", f"hydra.run.dir={tmp_path / str(n)}"])
        for n in (1, 2)
    )
    cosines = [pd.read_csv(folder / "metrics.csv")["gradients_cosine"].to_numpy() for folder in (alone, both)]
    assert cosines[1] == pytest.approx(cosines[0], rel=1e-4)
