"""Runs that are gone on with under a config that says the same otherwise, or on data that are not the same."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

import runner
from runner.errors import BadInput

SMALL = ["dataset.size=40", "dataset.dim=6", "arch.base_width=8", "arch.depth=3", "device=cpu"]


def tables(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(folder / f"{name}.csv") for name in ("metrics", "epochs")]


def test_probes_in_another_order_keep_their_columns(tmp_path: Path) -> None:
    """It is the same run: the values go below the names that the file has."""
    whole = runner.run([*SMALL, "probe=[fd,split]", "steps=4", f"hydra.run.dir={tmp_path / 'whole'}"])
    cut = f"hydra.run.dir={tmp_path / 'cut'}"
    runner.run([*SMALL, "probe=[fd,split]", "steps=2", cut])
    for found, expected in zip(
        tables(runner.run([*SMALL, "probe=[split,fd]", "steps=4", cut])), tables(whole), strict=True
    ):
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("key", "other"), [("training_samples", 30), ("training_data", "0" * 16), ("test_data", "0" * 16)]
)
def test_other_data_are_refused(tmp_path: Path, key: str, other: object) -> None:
    """As when `data_root` holds another copy now, which the config does not say."""
    folder = runner.run([*SMALL, "steps=2", f"hydra.run.dir={tmp_path / 'run'}"])
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["training_samples"] == 40
    (folder / "meta.json").write_text(json.dumps({**meta, key: other}))
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(BadInput, match=f"should have {key}={other}, as when it began, found {meta[key]}"):
        runner.run([*SMALL, "steps=4", f"hydra.run.dir={folder}"])
    runner.run([*SMALL, "steps=2", f"hydra.run.dir={folder}"])  # it has ended, and nobody said that the data moved
    with pytest.raises(BadInput, match=f"should have {key}={other}"):
        runner.run([*SMALL, "steps=2", f"hydra.run.dir={folder}", f"data_root={tmp_path}"])
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_run_that_has_ended_answers_for_its_data_elsewhere(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "steps=2", f"hydra.run.dir={tmp_path / 'run'}"])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert runner.run([*SMALL, "steps=2", f"hydra.run.dir={folder}", f"data_root={tmp_path}"]) == folder
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_it_goes_on_with_the_threads_it_began_with(tmp_path: Path) -> None:
    """Sums over another number of threads round differently."""
    run = [*SMALL, f"hydra.run.dir={tmp_path / 'run'}"]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        runner.run([*run, "steps=2"])
        torch.set_num_threads(1)
        folder = runner.run([*run, "steps=4"])
        assert json.loads((folder / "meta.json").read_text())["threads"] == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_plan_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="plan should be false"):
        runner.run([*SMALL, "plan=true", f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_epochs_count_samples(tmp_path: Path) -> None:
    """The last batch of an epoch may be a short one."""
    folder = runner.run([*SMALL, "batch_size=16", "steps=4", f"hydra.run.dir={tmp_path / 'run'}"])
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [0.0, 0.4, 0.8, 1.0, 1.4]


def test_a_slice_of_the_split_by_double_backward(tmp_path: Path) -> None:
    found = [
        pd.read_csv(
            runner.run(
                [
                    *SMALL, "precision=fp64", "steps=0", "probe=[split]", "probe.split.per=layer",
                    f"probe.split.method={method}", f"hydra.run.dir={tmp_path / method}",
                ]
            )
            / "split.csv"
        )
        for method in ("taylor", "double_backward")
    ]  # fmt: skip
    assert len(found[0]) == 3
    pd.testing.assert_frame_equal(*found, rtol=1e-10)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_an_optimizers_state_keeps_its_dtype(tmp_path: Path, precision: str) -> None:
    """NAdam keeps a number in fp32, whatever the parameters are in."""
    own = ["optimizer=custom", "optimizer._target_=torch.optim.NAdam", f"precision={precision}", "probe=[split]"]
    whole = runner.run([*SMALL, *own, "steps=8", f"hydra.run.dir={tmp_path / 'whole'}"])
    for steps in (3, 8):
        cut = runner.run([*SMALL, *own, f"steps={steps}", f"hydra.run.dir={tmp_path / 'cut'}"])
    assert (cut / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize(("every", "kept"), [(100, [0, 12]), (3, [0, 3, 6, 9, 12])])
@pytest.mark.parametrize("replicas", [1, 2])
def test_an_extended_run_has_the_files_of_one_that_never_ended(
    tmp_path: Path, every: int, kept: list[int], replicas: int
) -> None:
    own = [*SMALL, f"replicas={replicas}", "probe=[snapshot,hessian]", f"probe.snapshot.every={every}"]
    own += [f"probe.hessian.every={every}", "probe.hessian.save=true"]
    for folder, steps in (("a", 6), ("a", 12), ("b", 12)):
        runner.run([*own, f"steps={steps}", f"hydra.run.dir={tmp_path / folder}"])
    found, expected = (
        {str(path.relative_to(tmp_path / folder)) for path in (tmp_path / folder).glob("*/*-step*")}
        for folder in ("a", "b")
    )
    assert found == expected
    assert {int(re.findall(r"-step(\d+)", name)[0]) for name in found} == set(kept)
    assert len(found) == 4 * replicas * len(kept)  # weights, H, G and H_r


@pytest.mark.parametrize("replicas", [1, 2])
def test_files_of_networks_at_their_end_stay(tmp_path: Path, replicas: int) -> None:
    """As after a death between a run's last checkpoint and its status."""
    own = [*SMALL, f"replicas={replicas}", "probe=snapshot", "until.grad_norm=1e9", f"hydra.run.dir={tmp_path / 'a'}"]
    folder = runner.run([*own, "steps=6"])
    status = folder / "status.json"
    kept, ended = sorted(folder.glob("snapshot/*")), status.read_text()
    assert len(kept) == replicas
    status.write_text(json.dumps({**json.loads(ended), "status": "running"}))
    runner.run([*own, "steps=6"])
    assert (sorted(folder.glob("snapshot/*")), status.read_text()) == (kept, ended)
