"""Steps that are taken before the host looks at them give the same files as steps that are taken one by one."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import runner
from runner import ahead, train
from runner.ahead import on_host

MLP = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", "steps=40"]
CONV = [
    *("dataset=random_images", "dataset.size=50", "dataset.shape=[3,8,8]", "dataset.classes=4", "batch_size=12"),
    *("arch=resnet50", "arch.blocks=1", "arch.base_width=4", "device=cpu", "steps=19", "log_every=2", "eval_every=3"),
]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[range]]:
    """As on an asynchronous device, in blocks of at most seven steps; those that were taken ahead."""
    taken: list[range] = []
    original = train.steps_ahead

    def noted(*arguments: Any) -> bool:
        taken.append(arguments[-1])
        return original(*arguments)

    def took(pace: ahead.Pace, steps: int, seconds: float) -> None:
        pace._length = 7

    monkeypatch.setattr(ahead, "ASYNCHRONOUS", ("cpu", "cuda"))
    monkeypatch.setattr(ahead.Pace, "took", took)
    monkeypatch.setattr(train, "steps_ahead", noted)
    yield taken
    monkeypatch.undo()


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def assert_same(one: Path, other: Path) -> None:
    names = {p.relative_to(one) for p in one.rglob("*.csv")} | {Path("status.json")}
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other))
    assert first["step"] == second["step"]
    assert first["outcomes"] == second["outcomes"]
    for name, entry in first["model"].items():
        assert torch.equal(entry.nan_to_num(), second["model"][name].nan_to_num()), name


@pytest.mark.parametrize(
    "setting",
    [
        [*MLP, "probe=[fd,hvp,split,gradients]"],
        [*CONV, "probe=[fd,split]", "probe.split.every=4", "optimizer=adam"],
        [
            *CONV,
            "probe=[fd,snapshot,layer_norms]",
            "probe.snapshot.every=5",
            "probe.layer_norms.every=10",
            "clip_norm=1",
        ],
    ],
    ids=["full-batch", "minibatch", "files"],
)
def test_the_same_files(tmp_path: Path, setting: list[str], request: pytest.FixtureRequest) -> None:
    plain = run_in(tmp_path / "plain", *setting)
    taken: list[range] = request.getfixturevalue("blocks")
    assert_same(plain, run_in(tmp_path / "ahead", *setting))
    assert max(map(len, taken)) > 3
    if "probe.snapshot.every=5" in setting:
        assert not any(step % 5 == 0 for block in taken for step in block), "a file is written at its own step"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "momentum"])
@pytest.mark.parametrize(("setting", "rate"), [(MLP, 1e6), (CONV, 1e30)], ids=["mlp", "conv"])
def test_a_network_that_diverges_on_the_way_ends_where_it_does_step_by_step(
    tmp_path: Path, setting: list[str], rate: float, optimizer: str, request: pytest.FixtureRequest
) -> None:
    """The whole state is that of the step of the divergence: weights, statistics, the optimizer's moments."""
    more = [f"optimizer={optimizer}", f"optimizer.lr={rate}", "probe=[fd,split]"]
    plain = run_in(tmp_path / "plain", *setting, *more)
    assert '"diverged"' in (plain / "status.json").read_text()
    taken: list[range] = request.getfixturevalue("blocks")
    assert_same(plain, run_in(tmp_path / "ahead", *setting, *more))
    assert taken


def test_a_stopped_run_continues_to_the_same_bytes(
    tmp_path: Path, stopped_at: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    plain = run_in(tmp_path / "plain", *MLP)
    taken: list[range] = request.getfixturevalue("blocks")
    with stopped_at(10):
        run_in(tmp_path / "ahead", *MLP)
    assert any(10 in block[:-1] for block in taken), "the signal came within a block"
    assert_same(plain, run_in(tmp_path / "ahead", *MLP))


def test_what_was_measured_before_an_error_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    original = train.record

    def record(*arguments: Any, **named: Any) -> Any:
        if arguments[2].step == 11:
            raise RuntimeError("lost")
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train, "record", record)
        with pytest.raises(RuntimeError, match="lost"):
            run_in(tmp_path / "plain", *MLP)
        taken: list[range] = request.getfixturevalue("blocks")
        with pytest.raises(RuntimeError, match="lost"):
            run_in(tmp_path / "ahead", *MLP)
    assert 11 in taken[-1][1:]
    rows = (tmp_path / "plain" / "metrics.csv").read_bytes()
    assert rows.count(b"\n") == 1 + 11
    assert (tmp_path / "ahead" / "metrics.csv").read_bytes() == rows


@pytest.mark.parametrize("setting", [MLP, CONV], ids=["mlp", "conv"])
def test_nothing_is_read_within_a_block(
    tmp_path: Path, setting: list[str], blocks: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever would make the host wait for a device raises while steps are taken ahead."""
    original, within = train.take_step, [0]

    def take_step(*arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if len(arguments) > 5:
                within[0] += 1
                for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
                    patch.setattr(torch.Tensor, name, forbidden(name))
            original(*arguments)

    monkeypatch.setattr(train, "take_step", take_step)
    run_in(tmp_path / "run", *setting, "probe=[fd,hvp,split,gradients]")
    assert within[0] > 10


def forbidden(name: str) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"Tensor.{name} waits for the device")

    return method


def test_cells_arrive_as_they_are() -> None:
    cells = [torch.tensor(0.1), torch.tensor(math.pi, dtype=torch.float64), torch.arange(3), torch.tensor(float("nan"))]
    found = on_host([*cells, cells[0]])
    for cell, here in zip([*cells, cells[0]], found, strict=True):
        assert here.dtype == cell.dtype
        assert here.shape == cell.shape
        assert torch.equal(here.nan_to_num(-1), cell.nan_to_num(-1))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
def test_no_step_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own watch over synchronising calls is on while steps are taken ahead."""
    original, within = train.take_step, [0]

    def take_step(*arguments: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if len(arguments) > 5 else "default")
        within[0] += len(arguments) > 5
        try:
            original(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(train, "take_step", take_step)
    run_in(tmp_path / "run", *CONV, "device=cuda", "steps=200", "batch_size=50", "eval_every=1000")
    assert within[0] > 10
