"""The loop as a library user runs it: rows, stopping, continuing, and that measuring changes nothing."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import runner
from runner import train
from runner.errors import BadInput
from runner.stopwatch import Stopwatch

SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu"]
CONV = [
    "dataset=random_images",
    "dataset.size=50",
    "dataset.shape=[3,8,8]",
    "dataset.classes=4",
    "arch=resnet50",
    "arch.blocks=1",
    "arch.base_width=4",
    "batch_size=12",
    "device=cpu",
]
ALL_PROBES = "probe=[fd,hvp,split,gradients]"


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def read(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_rows_follow_the_contract(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=40")
    frame = read(folder)
    assert frame["step"].tolist() == list(range(41))
    assert frame["epoch"].tolist() == [float(step) for step in range(41)]
    start = ["step", "epoch", "replica", "lr", "train_loss", "train_error", "test_loss", "test_error", "grad_norm"]
    columns = [*start, "fd_gHg", "fd_decorrelated", "split_gHg", "split_gGg", "split_gHrg"]
    assert list(frame.columns) == columns
    assert frame["test_loss"].isna().all()
    assert frame.drop(columns=["test_loss", "test_error"]).notna().all().all()
    assert (frame["split_gHg"] - frame["split_gGg"] - frame["split_gHrg"]).abs().max() < 1e-5
    assert frame["fd_decorrelated"].to_numpy() == pytest.approx(frame["grad_norm"].to_numpy() ** 2 / 0.3, rel=1e-5)
    assert status(folder) == {"status": "finished", "reason": "", "step": 40}
    assert {p.name for p in folder.iterdir()} >= {".hydra", "metrics.csv", "epochs.csv", "meta.json", "checkpoint.pt"}
    assert {p.name for p in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 40


@pytest.mark.parametrize(("steps", "step_takes"), [(0, 1.0), (3, 7 / 4)])
def test_costs_are_in_units_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, step_takes: float
) -> None:
    """Where each piece of work takes a second: N + 1 forward and backward passes, N updates, N + 1 measurements."""

    @contextmanager
    def a_second(watch: Stopwatch) -> Iterator[None]:
        yield
        watch._seconds += 1

    monkeypatch.setattr(Stopwatch, "running", a_second)
    folder = run_in(tmp_path / "run", *SMALL, f"steps={steps}")
    costs = json.loads((folder / "meta.json").read_text())["cost_in_training_steps"]
    assert costs == pytest.approx({"fd": 1 / step_takes, "split": 1 / step_takes})
    run_in(folder, *SMALL, f"steps={steps + 2}")  # begins by measuring again at the step at which the first one ended
    meta = json.loads((folder / "meta.json").read_text())
    both = {"training steps": [(2 * steps + 1) + 5, steps + 4], **dict.fromkeys(("fd", "split"), [steps + 4] * 2)}
    assert meta["spent"] == both
    assert meta["cost_in_training_steps"]["split"] == both["training steps"][1] / both["training steps"][0]


def test_zero_steps_measure_the_initialisation_once(tmp_path: Path) -> None:
    frame = read(run_in(tmp_path / "run", *SMALL, "steps=0"))
    assert frame["step"].tolist() == [0]
    assert frame["split_gHg"].notna().all()


def test_a_row_is_the_state_before_its_update(tmp_path: Path) -> None:
    """Plain gradient descent by hand from the same start gives the same losses."""
    from hydra import compose, initialize_config_dir

    from runner.build import build
    from runner.config import CONF_DIR

    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        run = build(compose("config", overrides=[*SMALL, "precision=fp64"]))
    batch, losses = run.batches(0), []
    for _ in range(6):
        loss = 0.5 * (run.model(batch.inputs) - batch.labels[:, None]).square().mean()
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, list(run.model.parameters()))
        with torch.no_grad():
            for p, g in zip(run.model.parameters(), grads, strict=True):
                p -= 0.3 * g
    frame = read(run_in(tmp_path / "run", *SMALL, "precision=fp64", "steps=5"))
    assert frame["train_loss"].tolist() == pytest.approx(losses, rel=1e-12)


@pytest.mark.parametrize("setting", [SMALL, CONV], ids=["mlp", "conv"])
def test_measuring_changes_nothing(tmp_path: Path, setting: list[str]) -> None:
    more = ["steps=9", "optimizer=momentum", "log_every=1"]
    bare = run_in(tmp_path / "bare", *setting, *more, "probe=[]")
    places = ["probe.split.on=[batch,heldout]", "probe.fd.on=[batch,heldout]"] if setting is CONV else []
    full = run_in(tmp_path / "full", *setting, *more, ALL_PROBES, "probe.split.dtype=fp64", *places)
    training = list(read(bare).columns)
    assert read(full)[training].to_csv() == read(bare).to_csv()
    one, other = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (bare, full))
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name
    for p, entry in one["optimizer"]["state"].items():
        assert torch.equal(entry["momentum_buffer"], other["optimizer"]["state"][p]["momentum_buffer"])


def test_two_runs_give_the_same_bytes_and_leave_the_global_generator(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    folders = [run_in(tmp_path / name, *CONV, "steps=7", ALL_PROBES) for name in ("a", "b")]
    assert torch.equal(before, torch.get_rng_state())
    for name in ("metrics.csv", "epochs.csv"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize("setting", [SMALL, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_stopped_run_continues_to_the_same_bytes(
    tmp_path: Path, stopped_at: Callable[..., Any], setting: list[str], at: int
) -> None:
    more = ["steps=8", "optimizer=adam", ALL_PROBES]
    whole = run_in(tmp_path / "whole", *setting, *more)
    with stopped_at(at):
        run_in(tmp_path / "cut", *setting, *more)
    assert status(tmp_path / "cut") == {"status": "interrupted", "reason": "SIGTERM", "step": at + 1}
    with (tmp_path / "cut" / "metrics.csv").open("a") as file:
        file.write("9,9,9,9")  # what a later death would have left
    run_in(tmp_path / "cut", *setting, *more)
    for name in ("metrics.csv", "epochs.csv"):
        assert (whole / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_finished_run_is_extended_as_if_it_had_never_ended(tmp_path: Path) -> None:
    whole = run_in(tmp_path / "whole", *CONV, "steps=9")
    short = run_in(tmp_path / "short", *CONV, "steps=4")
    assert len(read(short)) == 5
    run_in(short, *CONV, "steps=9")
    for name in ("metrics.csv", "epochs.csv"):
        assert (whole / name).read_bytes() == (short / name).read_bytes()
    with pytest.raises(BadInput, match="at step 9 already"):
        run_in(short, *CONV, "steps=4")


def test_a_finished_run_is_not_touched(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=3")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    run_in(folder, *SMALL, "steps=3")
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_divergence_ends_the_run_and_keeps_all_rows(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=200", "optimizer.lr=1e6")
    frame = pd.read_csv(folder / "metrics.csv", keep_default_na=False)
    assert status(folder)["status"] == "diverged"
    assert frame["step"].iloc[-1] == status(folder)["step"] < 200
    assert str(frame["train_loss"].iloc[-1]) in ("nan", "inf") or str(frame["grad_norm"].iloc[-1]) in ("nan", "inf")
    assert run_in(folder, *SMALL, "steps=200", "optimizer.lr=1e6") == folder  # and stays ended
    assert pd.read_csv(folder / "epochs.csv")["step"].iloc[-1] == status(folder)["step"]


def test_a_failing_run_says_so_and_can_be_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = train.update

    def update(*arguments: object) -> None:
        raise RuntimeError("the disk burns")

    monkeypatch.setattr(train, "update", update)
    with pytest.raises(RuntimeError, match="the disk burns"):
        run_in(tmp_path / "run", *SMALL, "steps=5")
    assert status(tmp_path / "run")["status"] == "failed"
    assert "the disk burns" in status(tmp_path / "run")["reason"]
    assert "Traceback" in (tmp_path / "run" / "run.log").read_text()
    monkeypatch.setattr(train, "update", original)
    run_in(tmp_path / "run", *SMALL, "steps=5")
    assert len(read(tmp_path / "run")) == 6


def test_another_config_is_never_written_into_a_folder(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=1")
    with pytest.raises(BadInput, match="another config"):
        run_in(folder, *SMALL, "steps=1", "seed=5")


def test_epochs_csv_summarises_the_rows_of_each_epoch(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *CONV, "epochs=2", "log_every=1")
    rows, epochs = read(folder), pd.read_csv(folder / "epochs.csv")
    assert epochs["epoch"].tolist() == [1.0, 2.0]  # 50 samples by 12: five batches, the last of two
    first = rows[rows["step"] < 5]
    assert epochs["split_gHg_count"].tolist() == [5, 5]
    assert epochs["split_gHg_mean"][0] == pytest.approx(first["split_gHg"].mean(), rel=1e-6)
    assert epochs["split_gHg_q25"][0] == pytest.approx(first["split_gHg"].quantile(0.25), rel=1e-6)
    assert epochs["split_gHrg_negative"][0] == (first["split_gHrg"] < 0).mean()
    sizes = pd.Series([12, 12, 12, 12, 2])
    assert epochs["train_loss"][0] == pytest.approx((first["train_loss"] * sizes).sum() / 50, rel=1e-6)


def test_halving_and_warm_up_reach_the_rate_and_the_estimate(tmp_path: Path) -> None:
    more = ["schedule=halving", "schedule.milestones=[2,4]", "schedule.warmup=1", "steps=5", "optimizer.lr=0.2"]
    frame = read(run_in(tmp_path / "run", *SMALL, *more))
    assert frame["lr"].tolist() == pytest.approx([0.0, 0.2, 0.1, 0.1, 0.05, 0.05])
    assert frame["fd_gHg"].isna().tolist() == [True] + [False] * 5  # mu = 0 leaves the cell empty


def test_clipping_and_weight_decay_do_not_reach_the_measurement(tmp_path: Path) -> None:
    plain = read(run_in(tmp_path / "a", *SMALL, "steps=1"))
    other = read(run_in(tmp_path / "b", *SMALL, "steps=1", "clip_norm=1e-3", "optimizer.weight_decay=0.1"))
    assert plain.iloc[0].equals(other.iloc[0])  # the same point, measured the same
    assert plain["train_loss"][1] != other["train_loss"][1]  # and another update


def test_foreign_files_are_never_overwritten(tmp_path: Path) -> None:
    for name in ("epochs.csv", "checkpoint.pt", "notes.txt"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(BadInput, match=rf"should be empty or a run's folder, found {name}"):
            run_in(folder, *SMALL, "steps=1")
        assert (folder / name).read_text() == "mine"
        assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1', "null"])
@pytest.mark.parametrize("name", ["meta.json", "status.json"])
def test_an_unreadable_record_is_refused(tmp_path: Path, name: str, content: str) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=1")
    (folder / name).write_text(content)
    with pytest.raises(BadInput, match=name):
        run_in(folder, *SMALL, "steps=2")
    (folder / "meta.json").write_text('{"a": 1}')
    with pytest.raises(BadInput, match="another config"):
        run_in(folder, *SMALL, "steps=2")


def test_missing_rows_are_refused_before_work(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *SMALL, "steps=4")
    rows = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(rows[:2]))
    with pytest.raises(BadInput, match="should have at least"):
        run_in(folder, *SMALL, "steps=6")
    assert status(folder)["status"] == "finished"
    (folder / "metrics.csv").unlink()
    with pytest.raises(BadInput, match="should have at least"):
        run_in(folder, *SMALL, "steps=4")


@pytest.mark.parametrize("batch", [["dataset.size=31", "batch_size=10"], ["batch_size=1"]])
@pytest.mark.parametrize("probes", ["probe=[]", "probe=split"])
def test_a_batch_too_small_for_batch_norm_is_refused_before_work(tmp_path: Path, batch: list[str], probes: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be trained on a batch of 1 samples.*batch_size"):
        run_in(tmp_path / "run", *SMALL, *batch, "arch.norm=batch", "steps=4", probes)
    assert not (tmp_path / "run").exists()


def test_rows_are_logged_no_oftener_than_asked(tmp_path: Path) -> None:
    frame = read(run_in(tmp_path / "run", *SMALL, "steps=25", "log_every=10", "probe=[]"))
    assert frame["step"].tolist() == [0, 10, 20, 25]


def test_optimizers_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for rate in ("nan", "inf", "abc"):
        with pytest.raises(BadInput, match=r"optimizer\.lr should be"):
            run_in(tmp_path / "run", *SMALL, f"optimizer.lr={rate}", "steps=1")


def test_bf16_training_is_measured_in_fp32(tmp_path: Path) -> None:
    frame = read(run_in(tmp_path / "run", *CONV, "precision=bf16", "steps=2", "log_every=1"))
    exact = read(run_in(tmp_path / "exact", *CONV, "steps=0"))
    assert frame["split_gg"][0] == pytest.approx(exact["grad_norm"][0] ** 2, rel=1e-4)
    assert frame["split_gHg"][0] == pytest.approx(exact["split_gHg"][0], rel=1e-3)
    assert frame["grad_norm"][0] != exact["grad_norm"][0]


def test_a_list_of_mu_and_the_forms(tmp_path: Path) -> None:
    folder = run_in(
        tmp_path / "run", *SMALL, "steps=1", "probe=fd", "probe.fd.mu=[lr,1e-3,0.25]", "arch.activation=softplus",
        "precision=fp64",
    )  # fmt: skip
    frame = read(folder)
    assert [c for c in frame.columns if c.startswith("fd_gHg")] == ["fd_gHg_mulr", "fd_gHg_mu1e-3", "fd_gHg_mu2.5e-1"]
    loss = read(
        run_in(tmp_path / "loss", *SMALL, "steps=1", "probe=fd", "probe.fd.mu=1e-3", "probe.fd.form=loss",
               "arch.activation=softplus", "precision=fp64")
    )  # fmt: skip
    assert loss["fd_gHg"].to_numpy() == pytest.approx(frame["fd_gHg_mu1e-3"].to_numpy(), rel=1e-2)


def test_next_batch_is_the_next_steps_gradient(tmp_path: Path) -> None:
    """With plain SGD w - mu g is the next step's weights, so the estimate is (g'g - g'g_next) / mu."""
    frame = read(run_in(tmp_path / "run", *CONV, "steps=3", "log_every=1", "probe=fd", "probe.fd.form=next_batch"))
    g_dot_next = frame["grad_norm"] ** 2 - frame["fd_gHg"] * frame["lr"]
    norms = frame["grad_norm"].to_numpy()
    assert (g_dot_next.to_numpy()[:-1] <= norms[:-1] * norms[1:] * (1 + 1e-5)).all()
    same = read(run_in(tmp_path / "same", *SMALL, "steps=3", "probe=fd", "probe.fd.form=next_batch"))
    base = read(run_in(tmp_path / "base", *SMALL, "steps=3", "probe=fd"))
    assert same["fd_gHg"].to_numpy() == pytest.approx(base["fd_gHg"].to_numpy())  # full batch: the next is the same


def test_heldout_needs_enough_data(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"probe.split.on"):
        run_in(tmp_path / "run", *SMALL, "steps=1", "probe.split.on=[batch,heldout]")
    assert not (tmp_path / "run").exists()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
def test_a_deterministic_run_repeats_bit_for_bit_on_a_cuda_device(tmp_path: Path) -> None:
    more = [*CONV, "device=cuda", "deterministic=true", "steps=30", "optimizer=adam", ALL_PROBES]
    folders = [run_in(tmp_path / name, *more) for name in ("a", "b")]
    for name in ("metrics.csv", "epochs.csv"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    one, other = (torch.load(folder / "checkpoint.pt", weights_only=True)["model"] for folder in folders)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize(("replicas", "words"), [(1, "one number, found 3"), (2, "one number for each of 2 networks")])
def test_a_probe_that_gives_more_than_a_number_writes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, words: str
) -> None:
    monkeypatch.setattr("runner.probe.hvp.HessianVectorProduct.measure", lambda self, point: {"gHg": torch.ones(3)})
    with pytest.raises(ValueError, match=f"probe hvp: gHg should be {words}"):
        run_in(tmp_path, "dataset.size=20", "steps=1", "probe=[hvp]", f"replicas={replicas}", "device=cpu")
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1
