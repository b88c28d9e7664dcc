"""Networks side by side: each is the run of its own seed, to rounding, whatever becomes of the others."""

import json
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

import runner
from runner.errors import BadInput
from runner.networks import Networks

MLP = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", "precision=fp64"]
CONV = [
    "dataset=random_images", "dataset.size=20", "dataset.shape=[3,8,8]", "dataset.classes=4", "dataset.test_size=8",
    "arch=resnet50", "arch.blocks=1", "arch.base_width=4", "batch_size=8", "device=cpu", "precision=fp64",
]  # fmt: skip
SEQUENCES = [
    "dataset=random_images", "dataset.size=20", "dataset.shape=[1,4,3]", "dataset.classes=3", "arch=rnn",
    "arch.base_width=5", "loss=brier", "batch_size=8", "device=cpu", "precision=fp64",
]  # fmt: skip
BLOBS = ["dataset=blobs", "dataset.size=40", "arch.base_width=4", "device=cpu", "precision=fp64"]
PROBES = "probe=[fd,hvp,split,gradients]"


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def check_against_single_runs(tmp_path: Path, setting: list[str], replicas: int = 3, seed: int = 4) -> pd.DataFrame:
    together = run_in(tmp_path / "together", *setting, f"seed={seed}", f"replicas={replicas}")
    for table in ("metrics.csv", "epochs.csv"):
        rows = pd.read_csv(together / table)
        for r in range(replicas):
            folder = run_in(tmp_path / f"alone{r}", *setting, f"seed={seed + r}")
            alone = pd.read_csv(folder / table).assign(replica=r)
            mine = rows[rows["replica"] == r].reset_index(drop=True)
            if table == "epochs.csv" and len(mine) < len(alone):
                continue  # of many networks only epochs with a measurement are written
            pd.testing.assert_frame_equal(mine, alone, rtol=1e-7, atol=1e-13, check_dtype=False)
    return pd.read_csv(together / "metrics.csv")


@pytest.mark.parametrize(
    "setting",
    [
        [*MLP, "steps=6", PROBES],
        [*MLP, "steps=9", "batch_size=16", PROBES, "probe.split.on=[batch,heldout,sample,dataset]"],
        [*MLP, "steps=6", "optimizer=adam", "clip_norm=0.01", "probe=split", "probe.split.per=layer"],
        [*MLP, "steps=6", "optimizer=momentum", "schedule=cosine", "log_every=3", "probe=[]"],
        [*CONV, "steps=6", PROBES, "eval_every=2"],
        [*SEQUENCES, "steps=6", PROBES],
    ],
    ids=["full batch", "minibatches", "adam", "momentum", "batch norm", "recurrent"],
)
def test_each_equals_its_own_run(tmp_path: Path, setting: list[str]) -> None:
    frame = check_against_single_runs(tmp_path, setting)
    assert frame["replica"].value_counts().nunique() == 1
    assert frame.groupby("step")["train_loss"].nunique().eq(3).all()


def test_long_tables_name_the_replica(tmp_path: Path) -> None:
    setting = [*MLP, "steps=2", "probe=split", "probe.split.per=layer"]
    together = pd.read_csv(run_in(tmp_path / "together", *setting, "replicas=3") / "split.csv")
    alone = pd.read_csv(run_in(tmp_path / "alone", *setting, "seed=1") / "split.csv")
    mine = together[together["replica"] == 1].reset_index(drop=True).assign(replica=0)
    pd.testing.assert_frame_equal(mine, alone, rtol=1e-8)


def test_parts_of_the_stack_measure_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = [*MLP, "steps=4", "replicas=5", PROBES]
    whole = pd.read_csv(run_in(tmp_path / "whole", *setting) / "metrics.csv")
    monkeypatch.setitem(runner.networks.AT_ONCE, "cpu", 1)
    parts = pd.read_csv(run_in(tmp_path / "parts", *setting) / "metrics.csv")
    by = ["step", "replica"]
    pd.testing.assert_frame_equal(
        parts.sort_values(by, ignore_index=True), whole.sort_values(by, ignore_index=True), rtol=1e-9
    )


@pytest.mark.parametrize("at_once", [5, 2])
def test_one_without_a_value_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Of dead ReLU networks there is no ratio of signals, and no curvature along a gradient that is zero."""
    monkeypatch.setattr(Networks, "choose_at_once", lambda self, *_: setattr(self, "at_once", at_once))
    deep = ["arch.depth=20", "arch.base_width=3", "dataset.dim=3", "dataset.size=8", "device=cpu", "precision=fp64"]
    setting = [*deep, "steps=1", "probe=[layer_norms,output_curvature]"]
    frame = check_against_single_runs(tmp_path, setting, replicas=5, seed=1)
    living = frame["layer_norms_dead"] == 0
    assert 0 < living.sum() < len(frame)
    for column in ("layer_norms_signal_log_ratio", "output_curvature_Q_over_s"):
        assert frame[column].notna().equals(living)


def test_those_that_diverge_are_marked_and_the_others_go_on(tmp_path: Path) -> None:
    setting = [*MLP, "arch.activation=identity", "steps=30", "optimizer.lr=2.0", PROBES]
    frame = check_against_single_runs(tmp_path, setting, replicas=6, seed=0)
    status = json.loads((tmp_path / "together" / "status.json").read_text())
    ends = {one["replica"]: one for one in status["replicas"]}
    assert status["status"] == "finished"
    assert {one["status"] for one in ends.values()} == {"finished", "diverged"}
    for r, end in ends.items():
        alone = json.loads((tmp_path / f"alone{r}" / "status.json").read_text())
        assert (end["status"], end["step"]) == (alone["status"], alone["step"])
        assert frame.loc[frame["replica"] == r, "step"].max() == end["step"]


def test_all_that_diverge_end_the_run(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *MLP, "arch.activation=identity", "steps=500", "optimizer.lr=1e4", "replicas=3")
    assert json.loads((folder / "status.json").read_text())["status"] == "diverged"


UNTIL = [
    *BLOBS,
    "init=he",
    "steps=400",
    "until.grad_norm=0.05",
    "log_every=50",
    "probe=split",
    "probe.split.every=null",
]


def test_each_stops_at_its_own_small_gradient(tmp_path: Path) -> None:
    frame = check_against_single_runs(tmp_path, UNTIL, replicas=5, seed=0)
    last = frame.sort_values("step").groupby("replica").last()
    stopped = last[last["step"] < 400]
    assert stopped["step"].nunique() > 1
    assert (stopped["grad_norm"] < 0.05).all()
    assert last["split_gHg"].notna().all()  # the probes of the end measure each at its own


def test_stopped_weights_are_kept(tmp_path: Path) -> None:
    together = torch.load(run_in(tmp_path / "a", *UNTIL, "replicas=5") / "checkpoint.pt", weights_only=True)
    ends = json.loads((tmp_path / "a" / "status.json").read_text())["replicas"]
    for end in ends:
        folder = run_in(tmp_path / f"b{end['replica']}", *UNTIL[:-4], f"steps={end['step']}", f"seed={end['replica']}")
        alone = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
        for name, entry in alone.items():
            assert torch.allclose(together["model"][name][end["replica"]], entry, rtol=1e-9)


@pytest.mark.parametrize("stopped", [0, 3])
def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int) -> None:
    """Cut off before any replica has stopped, and after three of five have."""
    setting = [*UNTIL, "replicas=5", "optimizer=momentum", "optimizer.lr=0.05"]
    whole = run_in(tmp_path / "whole", *setting)
    ends = sorted(one["step"] for one in json.loads((whole / "status.json").read_text())["replicas"])
    at, original = ([0, *ends][stopped] + ends[stopped]) // 2, runner.train.look
    assert at < ends[stopped]

    def look(run: object, step: int, *more: object, **options: object) -> object:
        if step == at:
            signal.raise_signal(signal.SIGTERM)
        return original(run, step, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runner.train, "look", look)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_in(cut, *setting)
    monkeypatch.undo()
    assert json.loads((cut / "status.json").read_text())["status"] == "interrupted"
    run_in(cut, *setting)
    for name in ("metrics.csv", "epochs.csv", "status.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_a_run_alone_stops_too(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *UNTIL)
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "finished"
    assert "gradient norm" in status["reason"]
    before = (folder / "metrics.csv").stat().st_mtime_ns
    run_in(folder, *UNTIL)  # nothing is left to do
    assert (folder / "metrics.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["replicas=0"], "replicas should be at least 1, found 0"),
        (["replicas=2", "until.grad_norm=0"], "until.grad_norm should be null or a number > 0"),
        (
            ["replicas=2", "optimizer=custom", "optimizer._target_=torch.optim.Adafactor"],
            "needs an elementwise optimizer .*found Adafactor",
        ),
        (
            ["replicas=2", "arch=custom", f"arch._target_={__name__}.with_dropout", "~arch.depth", "~arch.base_width"],
            "cannot be computed side by side",
        ),
        (
            ["replicas=2", "arch=custom", f"arch._target_={__name__}.Asks", "~arch.depth", "~arch.base_width"],
            "should have one gradient side by side and alone, found two of",
        ),
    ],
)
def test_refusals(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run_in(tmp_path / "run", *MLP, "steps=1", "probe=[]", *overrides)


@pytest.mark.parametrize("seed", range(4))
def test_batch_norm_of_two_samples_is_rounding_and_no_refusal(tmp_path: Path, seed: int) -> None:
    deep = ["dataset.size=40", "arch.depth=16", "arch.base_width=100", "arch.norm=batch", "dataset.dim=4"]
    run_in(tmp_path / "run", *deep, "device=cpu", f"seed={seed}", "replicas=2", "steps=1", "probe=[]")


class Asks(torch.nn.Linear):
    """Does something else where nothing requires a gradient, as under the transforms that compute side by side."""

    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__(input_shape[0], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y.tanh() if y.requires_grad else y


def with_dropout(input_shape: list[int], outputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 4), torch.nn.Dropout(), torch.nn.Linear(4, outputs))


def test_the_last_epoch_is_written_also_where_nothing_was_measured_in_it(tmp_path: Path) -> None:
    run = ["dataset=blobs", "dataset.size=20", "batch_size=5", "steps=40", "log_every=15", "probe=[fd]", "device=cpu"]
    run += ["precision=fp64"]
    alone, together = (
        pd.read_csv(run_in(tmp_path / name, *run, *more) / "epochs.csv")
        for name, more in (("alone", []), ("together", ["replicas=2"]))
    )
    assert alone["epoch"].tolist() == list(range(1, 11))
    first = together[together["replica"] == 0]
    assert first["epoch"].tolist() == [1, 4, 8, 10]
    means = alone.set_index("epoch").loc[first["epoch"], ["train_loss", "train_error", "fd_gHg_mean"]]
    pd.testing.assert_frame_equal(first.set_index("epoch")[means.columns], means, rtol=1e-9)
