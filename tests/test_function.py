"""In a run too, all that is measured is of one function of the weights: that which is trained."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import runner
from runner.errors import BadInput

SMALL = ["dataset.size=20", "dataset.dim=5", "steps=4", "precision=fp64", "device=cpu", "init=default", "arch=custom"]


class Counting(nn.Module):
    """Its buffer moves with each forward pass in training mode, and the outputs with it, as in spectral norm."""

    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(input_shape[0], 8), nn.Linear(8, outputs)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        return self.b(torch.tanh(self.a(x))) * (1 + 0.1 * self.count)


class Odd(nn.Module):
    def __init__(self, input_shape: list[int], outputs: int, kind: str) -> None:
        super().__init__()
        self.layer, self.kind, self.calls = nn.Linear(input_shape[0], outputs), kind, 0
        self.held = [self.layer.weight]
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        y = self.layer(x)
        return {
            "python": lambda: y * (1 + random.random()),
            "numpy": lambda: y * (1 + np.random.rand()),
            "generator": lambda: y * (1 + torch.rand((), generator=self.generator)),
            "state": lambda: y * self.calls,
            "list": lambda: torch.tanh(y) + x @ self.held[0].T,
            "tuple": lambda: (y, None),
            "detached": lambda: y.detach(),
            "none": lambda: y,
        }[self.kind]()


def test_buffers_are_those_that_the_step_began_with(tmp_path: Path) -> None:
    """The estimate for a small mu is a difference of gradients at the same buffers; products are of these, too."""
    probes = ["probe=[fd,hvp,split,snapshot]", "probe.fd.mu=1e-6", "probe.snapshot.every=1"]
    folder = runner.run([*SMALL, f"arch._target_={__name__}.Counting", *probes, f"hydra.run.dir={tmp_path / 'run'}"])
    rows = pd.read_csv(folder / "metrics.csv")
    assert len(rows) == 5
    np.testing.assert_allclose(rows["fd_gHg"], rows["hvp_gHg"], rtol=1e-4)
    np.testing.assert_allclose(rows["split_gHg"], rows["hvp_gHg"], rtol=1e-10)
    for step in range(5):
        kept = torch.load(folder / "snapshot" / f"weights-step{step}.pt", weights_only=True)["model"]
        assert kept["count"] == step


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("python", "^arch: the network and its loss should .*, found draws from those of Python or NumPy"),
        ("numpy", "^arch: the network and its loss should .*, found draws from those of Python or NumPy"),
        ("generator", "at the same of all these found two gradients of layer.weight"),
        ("state", "at the same of all these found two gradients of layer.weight"),
        ("list", "at the same of all these found two gradients of layer.weight"),
        ("detached", "^arch: the loss should depend on the network's parameters"),
        ("tuple", "should return one tensor, found tuple"),
    ],
)
def test_what_is_no_function_of_its_parameters_is_refused(tmp_path: Path, kind: str, words: str) -> None:
    run = [*SMALL, f"arch._target_={__name__}.Odd", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(BadInput, match=words):
        runner.run([*run, f"arch.kind={kind}"])
    runner.run([*run, "arch.kind=none"])


class Compiled(nn.Sequential):
    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__(torch.compile(nn.Linear(input_shape[0], 7), backend="eager"), nn.Linear(7, outputs))


def test_compiled_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^arch: modules should not be compiled, .* found 0; compile=true compiles"):
        runner.run([*SMALL, f"arch._target_={__name__}.Compiled", f"hydra.run.dir={tmp_path / 'run'}"])


class Noisy(nn.CrossEntropyLoss):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.kind == "writes":
            self.calls += 1
        noise = torch.rand(()) if self.kind == "draws" else 0
        return super().forward(outputs, targets) * (1 + noise)


@pytest.mark.parametrize("kind", ["draws", "writes"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_loss_that_is_no_function_is_refused_by_its_own_key(tmp_path: Path, kind: str, replicas: int) -> None:
    own = ["arch=mlp", "loss=custom", f"loss._target_={__name__}.Noisy", f"+loss.kind={kind}", f"replicas={replicas}"]
    with pytest.raises(BadInput, match=rf"^loss: loss_fn should be a function of outputs and targets.* {kind} "):
        runner.run([*SMALL[:-1], *own, f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "metrics.csv").exists()


class Shared(nn.Module):
    """One layer under three names."""

    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(input_shape[0], 8), nn.Linear(8, outputs)
        self.layers = nn.ModuleList([nn.Linear(8, 8)] * 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        for layer in self.layers:
            h = torch.tanh(layer(h))
        return self.b(h)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_module_that_is_held_twice_is_trained(tmp_path: Path, replicas: int) -> None:
    run = [
        *SMALL,
        f"arch._target_={__name__}.Shared",
        "probe=[fd,hvp,split]",
        "probe.fd.mu=1e-6",
        f"replicas={replicas}",
    ]
    folder = runner.run([*run, f"hydra.run.dir={tmp_path / 'run'}"])
    start = runner.run([*run, "steps=0", f"hydra.run.dir={tmp_path / 'start'}"])
    found, begun = (torch.load(one / "checkpoint.pt", weights_only=True)["model"] for one in (folder, start))
    assert len(found) == 6
    assert all(not torch.equal(found[name], entry) for name, entry in begun.items())
    rows = pd.read_csv(folder / "metrics.csv")
    np.testing.assert_allclose(rows["split_gHg"], rows["hvp_gHg"], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(rows["fd_gHg"], rows["hvp_gHg"], rtol=1e-3, atol=1e-9)


class Remembering(nn.Module):
    """Its buffer is another tensor after each forward pass, and of another size; or its weights are, at the first."""

    def __init__(self, input_shape: list[int], outputs: int, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(input_shape[0], outputs), kind
        self.register_buffer("kept", torch.zeros(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.kind == "parameter" and self.training and not self.kept.any():
            self.layer.bias.data.copy_(-y.mean(0))
            self.kept += 1
        elif self.training:
            self.kept = torch.cat([self.kept, y.detach()])[-50:]
        return y - (0 if self.kind == "parameter" else self.kept.mean(0))


def test_buffers_that_grow_are_what_they_are_without_measuring(tmp_path: Path) -> None:
    run = [*SMALL, f"arch._target_={__name__}.Remembering", "arch.kind=buffer", "dataset=blobs", "dataset.test_size=9"]
    run = [one for one in run if one != "dataset.dim=5"]
    frames = []
    for name, more in (("plain", ["probe=[]"]), ("measured", ["probe=[hvp,split]", "until.grad_norm=1e-9"])):
        folder = runner.run([*run, *more, "eval_every=2", f"hydra.run.dir={tmp_path / name}"])
        frames.append(pd.read_csv(folder / "metrics.csv")[["train_loss", "test_loss", "grad_norm"]])
    pd.testing.assert_frame_equal(*frames)


def test_weights_that_a_forward_pass_sets_are_refused(tmp_path: Path) -> None:
    run = [*SMALL, f"arch._target_={__name__}.Remembering", "arch.kind=parameter", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(BadInput, match=r"not write to its parameters in a forward pass, found .*'layer.bias'"):
        runner.run(run)


def test_layers_without_a_size_are_refused(tmp_path: Path) -> None:
    run = [*SMALL, "arch._target_=torch.nn.LazyLinear", "arch.out_features=1", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(BadInput, match="should be given their sizes, found weight"):
        runner.run(run)


def test_contexts_of_a_notebook_do_not_reach_a_run(tmp_path: Path) -> None:
    run = ["dataset.size=20", "dataset.dim=5", "arch.base_width=8", "arch.depth=3", "steps=3", "device=cpu"]
    found = [runner.run([*run, f"hydra.run.dir={tmp_path / 'plain'}"])]
    with torch.autocast("cpu", torch.bfloat16):
        found.append(runner.run([*run, f"hydra.run.dir={tmp_path / 'autocast'}"]))
        assert torch.is_autocast_enabled("cpu")
    with torch.no_grad():
        found.append(runner.run([*run, f"hydra.run.dir={tmp_path / 'no_grad'}"]))
        assert not torch.is_grad_enabled()
    assert len({(folder / "metrics.csv").read_bytes() for folder in found}) == 1


class Unused(nn.Module):
    """A part of it gets no gradient, which leaves it alone under weight decay too."""

    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(input_shape[0], outputs), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("more", [["replicas=2"], ["devices=2"]], ids=["replicas", "devices"])
def test_parameters_without_a_gradient_are_left_alone(tmp_path: Path, more: list[str]) -> None:
    run = [*SMALL, f"arch._target_={__name__}.Unused", "optimizer=adamw", "optimizer.lr=0.1", "probe=[]"]
    alone, found = (
        torch.load(runner.run([*run, *extra, f"hydra.run.dir={tmp_path / name}"]) / "checkpoint.pt", weights_only=True)
        for name, extra in (("alone", []), ("found", more))
    )
    for name, entry in alone["model"].items():
        other = found["model"][name]
        torch.testing.assert_close(other[0] if more == ["replicas=2"] else other, entry, rtol=1e-9, atol=1e-12)


class Named(nn.Module):
    """With a scalar parameter, a complex one, or a name of its own."""

    def __init__(self, input_shape: list[int], outputs: int, kind: str) -> None:
        super().__init__()
        name = "a,b" if kind == "comma" else "a"
        self.parts = nn.ModuleDict({name: nn.Linear(input_shape[0], 5), "c": nn.Linear(5, outputs)})
        self.scale = nn.Parameter(torch.tensor(1.3 + (0.5j if kind == "complex" else 0)))

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.parts.values()
        return self.scale.real * last(torch.sin(first(x)))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("comma", "no comma, quote or line break, found 'parts.a,b'"), ("complex", "should be real, found scale")],
)
def test_parameters_that_tables_or_the_mathematics_are_not_for_are_refused(
    tmp_path: Path, kind: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        runner.run([*SMALL, f"arch._target_={__name__}.Named", f"+arch.kind={kind}", f"hydra.run.dir={tmp_path}/run"])


def test_a_scalar_parameter_trains_side_by_side(tmp_path: Path) -> None:
    own = [*SMALL, f"arch._target_={__name__}.Named", "+arch.kind=scalar", "probe=[split,products,hessian,spectrum]"]
    together = pd.read_csv(runner.run([*own, "replicas=2", f"hydra.run.dir={tmp_path}/two"]) / "metrics.csv")
    for seed in (0, 1):
        alone = pd.read_csv(runner.run([*own, f"seed={seed}", f"hydra.run.dir={tmp_path}/{seed}"]) / "metrics.csv")
        mine = together[together["replica"] == seed].drop(columns="replica").reset_index(drop=True)
        assert len(mine) == len(alone)
        shown = [column for column in mine if not column.startswith(("hessian", "spectrum_products"))]
        pd.testing.assert_frame_equal(mine[shown], alone[shown], rtol=1e-6, atol=1e-12, check_dtype=False)


@pytest.mark.parametrize("context", [torch.inference_mode(), torch.device("meta")], ids=["inference", "meta"])
def test_a_notebooks_contexts_do_not_reach_a_run(tmp_path: Path, context: Any) -> None:
    own = ["dataset.size=20", "dataset.dim=5", "steps=2", "arch.base_width=4"]
    plain = runner.run([*own, f"hydra.run.dir={tmp_path}/plain"])
    with context:
        within = runner.run([*own, f"hydra.run.dir={tmp_path}/within"])
    assert (within / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
