from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import runner
from runner.arch.mlp import MLP
from runner.arch.rnn import RNN
from runner.errors import BadInput
from runner.interpolating import Interpolating

SETTING = ["init=interpolating", "arch.bias=true", "precision=fp64", "device=cpu", "dataset.size=30", "steps=0"]


@pytest.mark.parametrize(
    "more",
    [
        ["arch.depth=2", "arch.activation=smoolu"],
        ["arch.depth=2", "arch.activation=relu", "arch.base_width=30", "dataset.labels=[-1.0,1.0]"],
        ["arch.depth=5", "arch.activation=smoolu"],
        ["arch.depth=8", "arch.activation=relu", "replicas=2"],
        ["arch.depth=3", "arch.activation=smoolu", "arch.outputs=2"],
        ["arch.depth=2", "arch.activation=smoolu", "dataset=random_images", "loss=mse", "arch=mlp",
         "dataset.shape=[1,4,4]", "arch.base_width=30"],
        ["arch.depth=2", "arch.activation=smoolu", "dataset.size=200", "arch.base_width=200", "dataset.dim=10"],
        ["arch.depth=2", "dataset.size=1"],
    ],
)  # fmt: skip
def test_the_loss_is_zero_at_the_start(tmp_path: Path, more: list[str]) -> None:
    frame = pd.read_csv(runner.run([*SETTING, *more, f"hydra.run.dir={tmp_path / 'run'}"]) / "metrics.csv")
    assert frame["train_loss"].max() < 1e-22
    assert frame["train_error"].max() == 0
    assert frame.filter(like="split_").notna().all().all()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["dataset.size=51"], r"arch.base_width times width should be at least 51, .*found 50"),
        (["arch.bias=false"], r"arch.bias should be true with init=interpolating, found false"),
        (["arch.depth=1"], "at least two weight layers .*found MLP with 1 linear layers"),
        (["arch.norm=batch"], "without normalisation"),
        (["arch.activation=tanh"], "arch.activation should be relu or smoolu"),
        (["arch.depth=4", "arch.residual=true"], "arch.residual=false"),
        (["loss=logistic"], "loss should be mse.*found one of classes"),
        (["loss=cross_entropy"], "loss should be mse.*found one of classes"),
    ],
)
def test_what_cannot_be_built_is_refused(tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        runner.run([*SETTING, "arch.depth=2", *more, f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def build(model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> nn.Module:
    Interpolating()(model, generator=torch.Generator().manual_seed(seed), width=1, data=lambda: (x, y))
    return model


def test_equal_inputs_are_refused() -> None:
    with pytest.raises(BadInput, match="training inputs should all differ"):
        build(MLP((2,), 1, base_width=4, depth=2, bias=True), torch.ones(2, 2), torch.tensor([[0.0], [1.0]]))


def test_a_network_that_is_no_chain_is_refused() -> None:
    class Skip(MLP):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + x[:, :1]

    model = Skip((2,), 1, base_width=4, depth=2, bias=True)
    with pytest.raises(BadInput, match="plain chain"):
        build(model, torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[0.0], [1.0]]))


def test_a_recurrent_network_is_refused() -> None:
    x, y = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[0.0], [1.0]])
    with pytest.raises(BadInput, match=r"arch should be an mlp, a chain of linear layers with biases, .* found RNN"):
        build(RNN((2,), 1, base_width=4, activation="relu"), x, y)


def test_units_left_over_are_off_and_the_seed_draws_the_projection() -> None:
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.arange(5.0)[:, None]
    one, same, other = (
        build(MLP((3,), 1, base_width=8, depth=3, bias=True, activation="smoolu"), x, y, seed) for seed in (0, 0, 1)
    )
    first, last, head = (module for module in one.modules() if isinstance(module, nn.Linear))
    assert first.weight[1:].abs().max() == 0
    assert last.weight[5:].abs().max() == head.weight[:, 5:].abs().max() == head.bias.abs().max() == 0
    pairs = [zip(one.parameters(), network.parameters(), strict=True) for network in (same, other)]
    assert all(torch.equal(p, q) for p, q in pairs[0])
    assert not any(torch.equal(p, q) for p, q in pairs[1] if p.dim() == 2 and len(p) > 1 and p.shape[1] == 3)


def test_single_precision_inputs_are_fitted_in_double_precision() -> None:
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), torch.linspace(-3, 2, 40).view(20, 2)
    model = build(MLP((3,), 2, base_width=20, depth=2, bias=True), x, y)
    assert (model(x.double()) - y.double()).abs().max() < 1e-11
