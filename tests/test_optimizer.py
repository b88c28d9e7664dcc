import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import runner
from runner.dataset.gaussian import gaussian
from runner.errors import BadInput
from runner.optimizer import LevenbergMarquardt, linearised

SMALL = ["arch.bias=true", "precision=fp64", "device=cpu", "probe=[]"]
SPARSE = ["optimizer=adam", "optimizer._target_=torch.optim.SparseAdam"]
TANH = [*SMALL, "dataset.size=8", "arch.depth=3", "arch.base_width=6", "arch.activation=tanh"]


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def losses(folder: Path) -> list[float]:
    return pd.read_csv(folder / "metrics.csv")["train_loss"].tolist()


def smoolu(x: Tensor) -> Tensor:
    inside = torch.where(x > 1e-3, x, 1.0)
    return torch.where(x > 1e-3, inside * torch.exp(-1 / inside), 0.0)


# Settings, activation, input dimension, data points, outputs.
NETS: dict[str, tuple[list[str], Callable[[Tensor], Tensor], int, int, int]] = {
    "tanh": (TANH, torch.tanh, 6, 8, 1),
    "smoolu": (
        [*SMALL, "dataset.size=8", "arch.depth=2", "arch.base_width=12", "arch.activation=smoolu", "init=normal",
         "init.gain=6"],
        smoolu, 12, 8, 1,
    ),
    "two outputs": (
        [*SMALL, "dataset.size=5", "arch.depth=3", "arch.base_width=7", "arch.activation=gelu", "arch.outputs=2"],
        F.gelu, 7, 5, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_zero_loss_and_as_many_positive_eigenvalues_as_residuals(tmp_path: Path, name: str) -> None:
    """Theorem of Cooper: at such a minimum the Hessian has r d positive eigenvalues for d points and r outputs, all
    others are 0. Seen here with a gap of ten orders of magnitude: above 1e-4 and below 1e-14 of the largest."""
    setting, phi, dim, size, outputs = NETS[name]
    folder = run_in(tmp_path / "run", *setting, "optimizer=levenberg_marquardt", "steps=15")
    assert losses(folder)[-1] < 1e-28
    parameters = torch.load(folder / "checkpoint.pt", weights_only=True)["model"].values()
    split = gaussian(dim=dim, size=size).train
    x, y = split.inputs.double(), split.labels[:, None].double()
    y = torch.cat([1 - y, y], 1) if outputs == 2 else y

    def loss(w: Tensor) -> Tensor:
        parts = [
            part.view(p.shape) for part, p in zip(w.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        *hidden, (weight, bias) = zip(parts[::2], parts[1::2], strict=True)
        h = x
        for inner, shift in hidden:
            h = phi(h @ inner.T + shift)
        return 0.5 * (h @ weight.T + bias - y).square().sum(1).mean()

    w = torch.cat([p.flatten() for p in parameters])
    spectrum = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, w)).flip(0)
    assert len(w) > outputs * size
    assert spectrum[outputs * size - 1] > 1e-4 * spectrum[0]
    assert spectrum[outputs * size :].abs().max() < 1e-14 * spectrum[0]


class Function:
    """Residuals as a function of one parameter vector."""

    def __init__(self, w: Tensor, function: Callable[[Tensor], Tensor]) -> None:
        self.w, self._function = nn.Parameter(w.double()), function

    def residuals(self) -> Tensor:
        return self._function(self.w)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("lr", [1.0, 0.25])
def test_a_step_is_the_damped_least_squares_solution(shape: tuple[int, int], lr: float) -> None:
    """Of [J; sqrt(lambda) I] h = [-r; 0], lambda = damping s_1^2; a linear model keeps its promise, so that the damping
    falls to a third."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(shape, generator=generator).double(), torch.randn(shape[0], generator=generator).double()
    problem = Function(torch.randn(shape[1], generator=generator), lambda w: a @ w - b)
    w = problem.w.detach().clone()
    root = 0.1 * torch.linalg.matrix_norm(a, 2)
    stacked = torch.cat([a, root * torch.eye(shape[1]).double()])
    h = torch.linalg.lstsq(stacked, torch.cat([b - a @ w, torch.zeros(shape[1]).double()])[:, None]).solution[:, 0]
    optimizer = LevenbergMarquardt([problem.w], lr=lr, damping=0.01)
    optimizer.step(problem)
    torch.testing.assert_close(problem.w.detach(), w + lr * h, rtol=1e-11, atol=1e-11)
    assert optimizer.param_groups[0]["damping"] == pytest.approx(0.01 / 3)


def test_the_loss_never_rises_where_whole_steps_would_diverge() -> None:
    """Gauss-Newton diverges on r = atan(w) from |w| > 1.4."""
    problem = Function(torch.tensor([3.0, -40.0]), torch.atan)
    optimizer = LevenbergMarquardt([problem.w], damping=1e-8)
    found = []
    for _ in range(40):
        found.append(problem.residuals().square().sum().item())
        optimizer.step(problem)
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1]
    assert found[-1] < 1e-28


@pytest.mark.parametrize(
    ("w", "function"),
    [
        (torch.tensor([-1.0, 2.0]), lambda w: 1 + torch.relu(-w.abs())),  # no slope at all
        (torch.zeros(3), lambda w: torch.cat([w, torch.ones(1)])),  # a minimum, at w = 0
        (torch.tensor([1.0]), lambda w: torch.where(w.detach() == 1, 0 * w + 1, torch.nan + w)),
    ],
)
def test_it_stays_where_no_step_helps(w: Tensor, function: Callable[[Tensor], Tensor]) -> None:
    problem = Function(w, function)
    optimizer = LevenbergMarquardt([problem.w])
    optimizer.step(problem)
    assert torch.equal(problem.w.detach(), w.double())
    assert optimizer.param_groups[0]["damping"] == 1e-3


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.idle = nn.Parameter(torch.ones(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Recurrent(), (11, 5, 3)),
        (nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
                       nn.Linear(12, 2)), (9, 2, 6, 6)),
    ],
    ids=["recurrent", "convolutional"],
)  # fmt: skip
def test_the_jacobian_is_that_of_single_backward_passes(model: nn.Module, shape: tuple[int, ...]) -> None:
    model.double()
    x, parameters = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double(), list(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # vmap warns where it cannot batch
        r, jacobian = linearised(lambda: model(x).flatten(), parameters)
    outputs = model(x).flatten()
    torch.testing.assert_close(r, outputs.detach())
    for row, output in zip(jacobian, outputs, strict=True):
        g = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(row, torch.cat([entry.flatten() for entry in g]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer", ["levenberg_marquardt", "lbfgs"])
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_a_continued_run_is_the_undisturbed_one(tmp_path: Path, optimizer: str, cut: int) -> None:
    setting = [*TANH, "dataset.size=20", f"optimizer={optimizer}"]
    whole = run_in(tmp_path / "whole", *setting, "steps=9")
    short = run_in(tmp_path / "short", *setting, f"steps={cut}")
    run_in(short, *setting, "steps=9")
    assert (whole / "metrics.csv").read_bytes() == (short / "metrics.csv").read_bytes()
    one, other = (torch.load(f / "checkpoint.pt", weights_only=True)["model"] for f in (whole, short))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(set(losses(whole))) == 10


def test_the_damping_is_in_the_state() -> None:
    problem = Function(torch.tensor([3.0]), torch.atan)
    optimizer, other = LevenbergMarquardt([problem.w]), LevenbergMarquardt([problem.w], damping=0.5)
    optimizer.step(problem)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["damping"] == optimizer.param_groups[0]["damping"] != 1e-3


def test_lbfgs_rows_are_its_iterates(tmp_path: Path) -> None:
    """The same as torch's own loop from the same start: row s is the loss after s iterations."""
    setting = [*TANH, "dataset.size=20", "optimizer=lbfgs"]
    start = run_in(tmp_path / "start", *setting, "steps=0")
    weights = torch.load(start / "checkpoint.pt", weights_only=True)["model"]
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    split = gaussian(dim=6, size=20).train
    own = torch.optim.LBFGS(
        model.parameters(), max_iter=1, max_eval=25, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        own.zero_grad()
        loss = 0.5 * (model(split.inputs.double())[:, 0] - split.labels).square().mean()
        loss.backward()
        return loss.item()

    expected = [float(own.step(closure)) for _ in range(31)]
    found = losses(run_in(tmp_path / "run", *setting, "steps=30"))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found[-1] < 0.1 * found[0]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("optimizer", ["levenberg_marquardt", "lbfgs"])
def test_at_a_rate_of_zero_there_is_no_step(tmp_path: Path, optimizer: str) -> None:
    ending = ["schedule=cosine", "schedule.epochs=3", "schedule.steps=null", "steps=6", f"optimizer={optimizer}"]
    found = losses(run_in(tmp_path, *TANH, *ending))
    assert found[2] != found[3]
    assert found[3] == found[4] == found[5] == found[6]


LM = [*TANH, "steps=1", "optimizer=levenberg_marquardt"]
LBFGS = [*TANH, "steps=1", "optimizer=lbfgs"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ([*LM, "loss=huber"], "loss should be mse or brier, a sum of squares, with LevenbergMarquardt, found Huber"),
        ([*LM, "precision=fp32"], "precision should be fp64 with LevenbergMarquardt, found .*float32"),
        ([*LM, "batch_size=4"], "batch_size should be null, the full batch, with LevenbergMarquardt"),
        (
            [*LM, "optimizer.memory_gb=1e-5"],
            r"memory_gb should be at least 1 for a Jacobian of 8 residuals by 91 parameters",
        ),
        ([*LM, "optimizer.lr=1.5"], r"optimizer.lr should be a number > 0 and at most 1, .*found 1.5"),
        ([*LM, "optimizer.damping=0.0"], r"optimizer.damping should be a number > 0, found 0.0"),
        ([*LM, "clip_norm=1.0"], "clip_norm should be null with LevenbergMarquardt"),
        ([*LBFGS, "clip_norm=1.0"], "clip_norm should be null with LBFGS.*found 1.0"),
        ([*LBFGS, "precision=bf16"], "precision should be fp32 or fp64 with LBFGS.*found bf16"),
        ([*LBFGS, "schedule.warmup=3.0"], "the first rate should be above 0 with LBFGS.*found 0 .*schedule.warmup"),
        ([*LBFGS, "replicas=2"], "replicas=2 needs an elementwise optimizer"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(tmp_path: Path, setting: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        run_in(tmp_path / "run", *setting)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp64", 1e-13)])
def test_updates_by_one_kernel_are_the_plain_ones_to_rounding(
    tmp_path: Path, name: str, precision: str, tolerance: float
) -> None:
    """Over a path of 50 updates of a network that training moves far."""
    more = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", "steps=50", "probe=[]"]
    more += [f"optimizer={name}", f"precision={precision}"]
    folders = run_in(tmp_path / "fused", *more), run_in(tmp_path / "plain", *more, "+optimizer.foreach=false")
    fused, plain = (torch.load(folder / "checkpoint.pt", weights_only=True)["optimizer"] for folder in folders)
    assert fused["param_groups"][0]["fused"]
    assert not plain["param_groups"][0]["fused"]
    assert losses(folders[0]) == pytest.approx(losses(folders[1]), rel=tolerance)


class Layout(nn.Module):
    """A weight that does not lie in memory row by row: turned, or a slice of a larger one."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, sliced: bool) -> None:
        super().__init__()
        d = input_shape[0]
        self.weight = nn.Parameter(torch.empty(14, d)[::2] if sliced else torch.empty(d, 7).t())
        self.head = nn.Linear(7, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x @ self.weight.t()))


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_weights_that_do_not_lie_row_by_row(tmp_path: Path, name: str, sliced: bool) -> None:
    more = ["device=cpu", "probe=[]", "dataset.size=20", "steps=6", "arch=custom", f"arch._target_={__name__}.Layout"]
    more += [f"arch.sliced={sliced}", f"optimizer={name}", "optimizer.lr=0.1"]
    found, plain = run_in(tmp_path / "run", *more), run_in(tmp_path / "plain", *more, "+optimizer.foreach=false")
    assert losses(found) == pytest.approx(losses(plain), rel=1e-5)
    with pytest.raises(BadInput, match=r"optimizer\.fused should be false for weights that do not lie row by row"):
        run_in(tmp_path / "fused", *more, "+optimizer.fused=true")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["+optimizer.fused=true", "+optimizer.foreach=true"], "^optimizer: .*fused.*foreach"),
        (["+optimizer.differentiable=true"], "optimizer.differentiable should be false"),
        (["optimizer=lbfgs", "optimizer.history_size=0"], "^optimizer: LBFGS with these options fails in its first"),
        (["optimizer=lbfgs", "optimizer.line_search_fn=foo"], "only 'strong_wolfe' is supported"),
        ([*SPARSE, "~optimizer.weight_decay", "~optimizer.amsgrad"], "SparseAdam does not support dense gradients"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        run_in(tmp_path / "run", *TANH, *more)


def test_an_optimizer_without_such_a_kernel_does_without(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", *TANH, "optimizer=rmsprop", "steps=2")
    assert len(losses(folder)) == 3
