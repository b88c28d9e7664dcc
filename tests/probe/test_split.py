"""The split probe's own options."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torchvision

import runner
from runner.arch.resnet import CifarResNet
from runner.curvature import sweeping
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import hessian_product
from runner.curvature.forward import split
from runner.curvature.layers import layer_of
from runner.curvature.mixing import mixes_samples
from runner.curvature.sweeping import compiling_pays
from runner.errors import BadInput

CONV = [
    "dataset=random_images", "dataset.size=24", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50",
    "arch.blocks=1", "arch.base_width=4", "batch_size=8", "device=cpu", "precision=fp64", "log_every=1", "probe=split",
]  # fmt: skip


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*CONV, *overrides, f"hydra.run.dir={folder}"])


def test_chunks_give_the_same_numbers_where_samples_do_not_mix(tmp_path: Path) -> None:
    whole = pd.read_csv(run_in(tmp_path / "whole", "arch.norm=group", "steps=2") / "metrics.csv")
    parts = pd.read_csv(run_in(tmp_path / "parts", "arch.norm=group", "steps=2", "probe.split.chunk=3") / "metrics.csv")
    for column in ("split_gHg", "split_gGg", "split_gHrg"):
        assert parts[column].to_numpy() == pytest.approx(whole[column].to_numpy(), rel=1e-10)


def test_auto_takes_parts_where_that_pays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sweeping, "THIRDS_FROM_FLOPS", 1)
    for norm, expected in (("group", 4), ("batch", None)):  # of 10 samples
        folder = run_in(tmp_path / norm, f"arch.norm={norm}", "steps=1", "batch_size=10")
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        assert state["probes"]["split"]["at_a_time"] == expected


class Experts(torch.nn.Module):
    """One expert takes eight samples, and drops all others: so few samples never meet that many do."""

    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(input_shape[0], 6), torch.nn.Linear(6, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        taken = torch.arange(len(x), device=x.device)[:, None] < 8
        found: torch.Tensor = self.b(torch.tanh(self.a(x)) * taken)
        return found


@pytest.mark.parametrize("chunk", [3, "auto", "null"])
def test_samples_that_meet_among_many_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunk: Any) -> None:
    monkeypatch.setattr(sweeping, "THIRDS_FROM_FLOPS", 1)
    given = [
        "dataset=blobs", "dataset.size=24", "steps=2", "device=cpu", "precision=fp64", "probe=[split,hvp]",
        "arch=custom", f"arch._target_={__name__}.Experts", f"probe.split.chunk={chunk}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    if chunk == 3:
        with pytest.raises(BadInput, match=r"probe\.split\.chunk should be null"):
            runner.run(given)
        return
    frame = pd.read_csv(runner.run(given) / "metrics.csv")
    assert frame["split_gHg"].to_numpy() == pytest.approx(frame["hvp_gHg"].to_numpy(), rel=1e-10)


def test_chunks_are_refused_where_they_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"probe\.split.*batch statistics"):
        run_in(tmp_path / "run", "arch.norm=batch", "steps=1", "probe.split.chunk=3")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("per", ["layer", "parameter"])
def test_slices_are_the_diagonal_blocks(tmp_path: Path, per: str) -> None:
    folder = run_in(tmp_path / "run", "steps=2", f"probe.split.per={per}")
    table, metrics = pd.read_csv(folder / "split.csv"), pd.read_csv(folder / "metrics.csv")
    assert list(table.columns) == ["step", "replica", per, "gHg", "gGg", "gHrg", "on"]
    assert set(table["step"]) == {0, 1, 2}
    assert table.groupby("step").size().nunique() == 1
    assert (table["gGg"] >= 0).all()
    assert table[per].is_unique is False
    assert len(metrics) == 3


def test_a_slice_against_double_backward() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    loss = BatchLoss(model, torch.nn.CrossEntropyLoss(), torch.randn(7, 4).double(), torch.randint(0, 3, (7,)))
    g = loss.gradient()
    for layer in ("0", "2"):
        v = {name: entry for name, entry in g.items() if layer_of(name) == layer}
        padded = {name: v.get(name, torch.zeros_like(entry)) for name, entry in g.items()}
        torch.testing.assert_close(split(loss, v).gHg, hessian_product(loss, padded).gHg, rtol=1e-10, atol=1e-14)


def test_methods_agree(tmp_path: Path) -> None:
    one = pd.read_csv(run_in(tmp_path / "a", "steps=2") / "metrics.csv")
    other = pd.read_csv(run_in(tmp_path / "b", "steps=2", "probe.split.method=double_backward") / "metrics.csv")
    scale = one["split_gGg"] + one["split_gHrg"].abs()
    for column in ("split_gHg", "split_gGg", "split_gHrg"):
        assert ((one[column] - other[column]).abs() <= 1e-10 * scale).all()


def test_a_network_without_rules_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_network.py").write_text(
        "import torch\n"
        "class Odd(torch.nn.Module):\n"
        "    def __init__(self, outputs: int, input_shape: list[int]):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(input_shape[0], outputs)\n"
        "    def forward(self, x):\n"
        "        return torch.cumprod(self.layer(x), 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ["arch=custom", "arch._target_=odd_network.Odd", "dataset.dim=5", "init=default", "steps=1", "device=cpu"]
    with pytest.raises(BadInput, match=r"probe\.split.*cumprod.*probe=hvp"):
        runner.run([*own, "probe=split", f"hydra.run.dir={tmp_path / 'run'}"])


def test_samples_mix_through_batch_statistics_and_dropout_only() -> None:
    x, y = torch.randn(6, 4), torch.randint(0, 3, (6,))

    def mixes(*layers: torch.nn.Module, training: bool = True) -> bool:
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), *layers, torch.nn.Linear(5, 3)).train(training)
        return mixes_samples(BatchLoss(model, torch.nn.CrossEntropyLoss(), x, y))

    assert mixes(torch.nn.BatchNorm1d(5))
    assert mixes_samples(BatchLoss(torch.nn.BatchNorm1d(4), torch.nn.CrossEntropyLoss(), x[:2], y[:2]))
    assert not mixes(torch.nn.BatchNorm1d(5), training=False)
    assert mixes(torch.nn.Dropout(0.5))
    assert not mixes(torch.nn.LayerNorm(5), torch.nn.Tanh())
    assert mixes(torch.nn.Dropout(1e-6))  # whatever is drawn


def test_samples_mix_by_whatever_draws() -> None:
    """As a path that is dropped for one sample in a thousand, which few samples would not show."""
    path = torchvision.ops.StochasticDepth(1e-3, "row")
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), path, torch.nn.Linear(5, 3))
    loss = BatchLoss(model, torch.nn.CrossEntropyLoss(), torch.randn(4, 4), torch.randint(0, 3, (4,)))
    draws = torch.get_rng_state()
    assert mixes_samples(loss)
    assert torch.equal(torch.get_rng_state(), draws)


class OwnStatistics(torch.nn.Module):
    """Not one of torch's modules: only trying tells."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(x, None, None, training=True)


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm1d(5), OwnStatistics(), torch.nn.Tanh()])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 0.0])
def test_samples_mix_below_a_last_layer_of_zeros_too(layer: torch.nn.Module, scale: float) -> None:
    """At its weights the outputs are alike, whatever lies below."""
    head = torch.nn.Linear(5, 3)
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale)
    x, y = torch.randn(6, 4), torch.randint(0, 3, (6,))
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), layer, head)
    draws = torch.get_rng_state()
    for count in (2, 6):  # two are tried one by one
        loss = BatchLoss(network, torch.nn.CrossEntropyLoss(), x[:count], y[:count])
        assert mixes_samples(loss) is not isinstance(layer, torch.nn.Tanh)
    assert torch.equal(torch.get_rng_state(), draws)


def test_compiling_is_for_long_runs_of_networks_with_normalisation() -> None:
    def pays(norm: str, measurements: int) -> bool:
        model = CifarResNet((3, 32, 32), 10, width=1, blocks=1, norm=norm)  # type: ignore[arg-type]
        loss = BatchLoss(model, torch.nn.CrossEntropyLoss(), torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
        return compiling_pays(loss, 100, measurements)

    assert not pays("batch", 100)
    assert pays("batch", 100_000)
    assert not pays("none", 100_000)


def test_the_choice_lives_in_the_checkpoint(tmp_path: Path) -> None:
    """A run extended to where compiling would have paid, or samples meet, goes on as it began."""
    folder = run_in(tmp_path / "run", "steps=1", "arch.norm=group", "probe.split.chunk=3")
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["probes"]["split"]
    assert state == {"compiled": False, "at_a_time": 3, "chunks_tried": True}


@pytest.mark.slow
def test_compiled_rules_measure_the_same(tmp_path: Path) -> None:
    one = pd.read_csv(run_in(tmp_path / "a", "steps=2") / "metrics.csv")
    other = pd.read_csv(run_in(tmp_path / "b", "steps=2", "probe.split.compile=true") / "metrics.csv")
    scale = one["split_gGg"] + one["split_gHrg"].abs()
    for column in ("split_gHg", "split_gGg", "split_gHrg"):
        assert ((one[column] - other[column]).abs() <= 1e-10 * scale).all()
