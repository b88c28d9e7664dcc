"""One run on several devices is the run of one process, to rounding; and whatever happens to a rank happens to all."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn

import runner
from runner import reload
from runner.build import build
from runner.config import CONF_DIR
from runner.crew import RankDied
from runner.dataset.batches import Batch, Batches
from runner.display import Display
from runner.errors import BadInput
from runner.experiment import Experiment
from runner.folder import RunFolder
from runner.ranks import Ranks
from runner.work import one_process

MLP = ["dataset.size=50", "arch.depth=3", "arch.base_width=6", "device=cpu", "precision=fp64"]
CONV = [
    "dataset=random_images", "dataset.size=26", "dataset.shape=[3,8,8]", "dataset.classes=4", "dataset.test_size=9",
    "arch=resnet50", "arch.blocks=1", "arch.base_width=4", "arch.activation=softplus", "batch_size=10", "log_every=1",
    "device=cpu", "precision=fp64",
]  # fmt: skip
TURNED = ["dataset.size=20", "device=cpu", "precision=fp64", "arch=custom", f"arch._target_={__name__}.Turned"]
SELDOM = ["dataset.size=36", "device=cpu", "precision=fp64", "arch=custom", f"arch._target_={__name__}.Seldom"]
EVERYWHERE = [f"probe.{probe}.on=[batch,heldout,sample,dataset]" for probe in ("fd", "hvp", "split", "products")]
SAMPLES = [f"probe.{probe}.samples=17" for probe in ("fd", "hvp", "split", "products")]
PLACES = ["probe=[fd,hvp,split,products]", *EVERYWHERE, *SAMPLES]
ALL = (
    "probe=[fd,hvp,split,gradients,products,hessian,spectrum,density,trace,alignment,output_curvature,layer_norms,"
    "snapshot]"
)

QUICK = ["probe.spectrum.k=2", "probe.alignment.k=1", "probe.density.steps=9", "probe.trace.products=12"]
SYNCHRONISED = ["arch.norm=batch", "sync_batch_norm=true"]

SETTINGS: dict[str, tuple[int, list[str]]] = {  # the number of ranks, and what they run
    "every probe": (2, [*MLP, "steps=1", ALL, "probe.split.per=layer", "probe.fd.mu=[lr,1e-3]", *QUICK]),
    "minibatches": (2, [*MLP, "steps=5", "batch_size=15", "optimizer=momentum", "clip_norm=0.1", *PLACES]),
    "three ranks": (3, [*MLP, "steps=5", "batch_size=20", "probe.fd.form=next_batch", "probe.split.chunk=2"]),
    "group norm": (2, [*CONV, "steps=3", "arch.norm=group", "optimizer=adam", "eval_every=2", *PLACES]),
    "synchronised": (2, [*MLP, *SYNCHRONISED, "steps=3", "batch_size=15", "dataset.test_size=9", *PLACES]),
    "synchronised maps": (2, [*CONV, *SYNCHRONISED, "steps=2", "probe=[split]"]),
    "columns first": (2, [*TURNED, "steps=6", "optimizer=adam", "optimizer.lr=0.1", "probe=[split]"]),
    "a part that few samples use": (
        2,
        [*SELDOM, "steps=9", "batch_size=4", "optimizer=adam", "optimizer.weight_decay=1"],
    ),
    "own statistics": (2, [*CONV, "steps=3", "arch.norm=batch", "eval_every=1", "probe=[hvp,split]"]),
}


class Turned(nn.Sequential):
    """The first layer's weight lies in memory column by column, as in convolutions that are channels_last."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(nn.Linear(input_shape[0], 7), nn.Tanh(), nn.Linear(7, outputs))
        self[0].weight = nn.Parameter(torch.zeros(input_shape[0], 7).t())


class Seldom(nn.Module):
    """A part of it is used where a batch has one of some samples; else its weights get no gradient, and stay."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.often, self.seldom = (nn.Linear(input_shape[0], outputs) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[:, :1] > 0.15
        y: Tensor = self.often(x)
        return y + chosen * self.seldom(x) if chosen.any() else y


def composed(overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return compose("config", overrides=list(overrides))


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def one_rank(rank: int, place: Path) -> None:
    """Trains, as one of the ranks, all that SETTINGS list. This is what the processes of a run do, without the making
    of these, which takes longer than all the rest."""
    torch.set_num_threads(1)
    for name, (count, overrides) in SETTINGS.items():
        if rank < count:
            cfg = composed([*overrides, f"devices={count}"])
            joined = Ranks(rank, count).joined(str(place / f"{name}.rendezvous"), torch.device("cpu"))
            with (
                one_process(cfg, Ranks(rank, count)) as work,
                RunFolder(place / name / str(rank), cfg) as folder,
                joined,
            ):
                work.train(folder, None, lambda: "", lambda step, row: None)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the ranks have trained: <setting>/<rank>."""
    place = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(one_rank, (place,), nprocs=3)
    return place


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "own statistics"])
def test_several_ranks_are_one_process_to_rounding(tmp_path: Path, together: Path, name: str) -> None:
    alone = run_in(tmp_path / "run", *SETTINGS[name][1])
    tables = sorted(path.name for path in alone.glob("*.csv"))
    assert sorted(path.name for path in (together / name / "0").glob("*.csv")) == tables
    for table in tables:
        mine, theirs = (pd.read_csv(folder / table) for folder in (together / name / "0", alone))
        rounding = [column for column in mine if column.endswith("residual")]
        mine, theirs = mine.drop(columns=rounding), theirs.drop(columns=rounding)
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-7, atol=1e-10, check_dtype=False)
    for one, other in zip(*(sorted(f.glob("snapshot/*.pt")) for f in (together / name / "0", alone)), strict=True):
        states = [torch.load(path, weights_only=True)["model"] for path in (one, other)]
        for key, entry in states[0].items():
            assert torch.allclose(entry, states[1][key], rtol=1e-10)


def test_only_rank_0_writes(together: Path) -> None:
    for folder in together.glob("*/[12]"):
        assert [path.name for path in folder.iterdir()] in ([], [".lock"])


def test_own_statistics_are_averages_over_sub_batches(together: Path) -> None:
    """By plain torch: L = (L_1 + L_2) / 2 of the halves of a batch, each normalised by itself."""
    frame = pd.read_csv(together / "own statistics" / "0" / "metrics.csv")
    run = build(composed(SETTINGS["own statistics"][1]))
    weights = list(run.model.parameters())
    for row in frame.itertuples():
        if row.step:
            assert evaluated(run) == pytest.approx(row.test_loss, rel=1e-10)
        batch = run.batches(int(row.step))
        loss, statistics = torch.zeros((), dtype=torch.float64), dict[str, Tensor]()
        for here in torch.arange(len(batch)).tensor_split(2):
            share, buffers = len(here) / len(batch), {n: b.clone() for n, b in run.model.named_buffers()}
            outputs = torch.func.functional_call(run.model, buffers, (batch.inputs[here],))
            loss = loss + share * nn.functional.cross_entropy(outputs, batch.labels[here])
            statistics = {name: share * b + statistics.get(name, 0) for name, b in buffers.items()}
        run.model.load_state_dict(statistics, strict=False)
        g = torch.autograd.grad(loss, weights, create_graph=True)
        square = sum(((entry * entry.detach()).sum() for entry in g), torch.zeros(()))
        hg = torch.autograd.grad(square, weights)
        gHg = sum((h * v.detach()).sum() for h, v in zip(hg, g, strict=True))
        assert (row.train_loss, row.grad_norm**2) == pytest.approx((loss.item(), square.item()), rel=1e-9)
        assert (row.hvp_gHg, row.split_gHg) == pytest.approx((float(gHg), float(gHg)), rel=1e-8)
        with torch.no_grad():
            for p, entry in zip(weights, g, strict=True):
                p -= row.lr * entry


def evaluated(run: Experiment) -> float:
    run.model.eval()
    (batch,) = run.batches.test()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(run.model(batch.inputs), batch.labels)
    run.model.train()
    return loss.item()


@pytest.mark.parametrize("count", [2, 3])
def test_parts_make_up_the_whole(count: int) -> None:
    whole = build(composed(CONV)).batches
    parts = [whole.part(rank, count) for rank in range(count)]
    looks: list[Callable[[Batches], list[Batch]]] = [
        lambda batches: [batches(step) for step in range(6)],
        lambda batches: [batches.heldout(step) for step in range(6)],
        lambda batches: [batches.sample(11)],
        lambda batches: list(batches.whole()),
    ]
    for look in looks:
        for batch, *split in zip(look(whole), *map(look, parts), strict=True):
            assert torch.equal(batch.inputs, torch.cat([part.inputs for part in split]))
            assert torch.equal(batch.labels, torch.cat([part.labels for part in split]))
            assert [part.share / batch.share for part in split] == pytest.approx([len(p) / len(batch) for p in split])
            assert max(map(len, split)) - min(map(len, split)) <= 1
    (test,), split = whole.test(), [batch for part in parts for batch in part.test(2)]
    assert torch.equal(test.inputs.flatten().msort(), torch.cat([batch.inputs for batch in split]).flatten().msort())
    assert sum(batch.share for batch in split) == pytest.approx(1)


LONG = [
    *MLP, "arch.norm=batch", "precision=fp32", "batch_size=15", "steps=400", "optimizer=momentum", "probe=[split]",
    "log_every=20", "devices=2",
]  # fmt: skip


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_in(tmp_path / "whole", *LONG)
    meta = json.loads((whole / "meta.json").read_text())
    assert meta["devices"] == 2
    assert "each device's own part of a batch" in meta["batch_norm"]
    assert meta["cost_in_training_steps"]["split"] > 0
    original = Display.show

    def show(self: Display, step: int, row: Any) -> None:
        if step > 0:
            signal.raise_signal(signal.SIGTERM)
        original(self, step, row)

    monkeypatch.setattr(Display, "show", show)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        run_in(cut, *LONG)
    monkeypatch.undo()
    assert status(cut)["status"] == "interrupted"
    assert 0 < status(cut)["step"] < 400
    run_in(cut, *LONG)
    for name in ("metrics.csv", "epochs.csv", "status.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


class Fails(nn.Module):
    """Rank 1 fails in its third forward pass of the training."""

    def __init__(self, input_shape: list[int], outputs: int, how: str) -> None:
        super().__init__()
        self.layer, self.how, self.passes = nn.Linear(input_shape[0], outputs), how, 0

    def forward(self, x: Tensor) -> Tensor:
        if dist.is_initialized() and dist.get_rank() == 1:
            self.passes += 1
            if self.passes == 3 and self.how == "exit":
                os._exit(7)
            if self.passes == 3 and self.how == "raise":
                raise ArithmeticError("the lamp is out")
        return self.layer(x)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("exit", RankDied, "rank 1 ended with exit code 7 without a word"),
        ("raise", ArithmeticError, "the lamp is out"),
    ],
)
def test_the_end_of_a_rank_is_the_end_of_the_run(
    tmp_path: Path, how: str, error: type[Exception], message: str
) -> None:
    setting = ["arch=custom", f"arch._target_={__name__}.Fails", f"+arch.how={how}", "steps=1000", "devices=2"]
    began = time.monotonic()
    with pytest.raises(error, match=message):
        run_in(tmp_path / "run", "device=cpu", "dataset.size=40", "probe=[]", *setting)
    assert time.monotonic() - began < 120  # the time that it takes to start, and no timeout
    assert status(tmp_path / "run") == {"status": "failed", "reason": f"{error.__name__}: {message}", "step": 0}
    log = (tmp_path / "run" / "run.log").read_text()
    assert message in log
    assert (f'"{__file__}", line' in log) == (how == "raise")  # the rank's own traceback


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["devices=0"], "devices should be at least 1, found 0"),
        (["devices=2", "replicas=3"], "devices should be 1 with replicas=3, found 2"),
        (["devices=2", "device=cuda"], "device"),
    ],
)
def test_refusals_of_the_config(tmp_path: Path, overrides: list[str], message: str) -> None:
    if "device=cuda" in overrides and torch.cuda.device_count() > 1:
        pytest.skip("there are several cuda devices")
    with pytest.raises(BadInput, match=message):
        run_in(tmp_path / "run", *MLP, "steps=1", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "found"),
    [([], ""), (["arch.norm=batch"], "BatchNorm1d"), (["arch.norm=batch", "sync_batch_norm=true"], "")],
)
def test_only_what_does_not_depend_on_the_device_is_measured_again(overrides: list[str], found: str) -> None:
    cfg = composed([*MLP, *overrides, "devices=2"])
    with pytest.raises(BadInput, match=f"devices should have been 1 .*{found}") if found else nullcontext():
        reload.experiment(cfg)


@pytest.mark.parametrize(("share", "differs"), [(0.5, True), (0.0, False)])
def test_dropout_draws_by_device(share: float, differs: bool) -> None:
    assert reload.by_device(nn.Dropout(share), synchronised=True) == differs


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=2"], "at least one sample for each of 3 devices, found a batch of 2 samples"),
        (["batch_size=7"], "at least one sample for each of 3 devices, found a batch of 1 at the end of an epoch"),
        (["optimizer=lbfgs"], "devices should be 1 with LBFGS"),
        (["optimizer=levenberg_marquardt"], "devices should be 1 with LevenbergMarquardt"),
        (["probe.split.on=[sample]", "probe.split.samples=2"], "probe.split.samples should be at least 3"),
    ],
)
def test_refusals_of_the_ranks(overrides: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(composed([*MLP, *overrides, "devices=3"]), Ranks(1, 3))
