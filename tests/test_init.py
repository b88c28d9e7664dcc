import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from runner.arch.mlp import MLP
from runner.arch.resnet import CifarResNet
from runner.errors import BadInput
from runner.init import Default, Independent, Init, Sphere

CONF = Path(__file__).parents[1] / "conf" / "init"
LAWS = ("normal", "uniform", "rademacher")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def load(name: str) -> Init:
    init: Init = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    return init


# Layer, its inputs, outputs and kernel positions.
LAYERS: dict[str, tuple[Callable[[], Any], int, int, int]] = {
    "linear": (lambda: nn.Linear(300, 200), 300, 200, 1),
    "conv": (lambda: nn.Conv2d(40, 60, 5), 40, 60, 25),
    "grouped": (lambda: nn.Conv2d(40, 60, 5, groups=2), 20, 30, 25),
    "transposed": (lambda: nn.ConvTranspose2d(40, 60, 5), 40, 60, 25),
}


@pytest.mark.parametrize("fan", ["in", "out", "average", "width"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("law", LAWS)
def test_variance_is_gain_squared_over_fan(law: str, layer: str, fan: str) -> None:
    make, inputs, outputs, positions = LAYERS[layer]
    model = make()
    Independent(law, gain=1.7, fan=fan)(model, generator=generator(), width=123)  # type: ignore[arg-type]
    each = {"in": inputs, "out": outputs, "average": (inputs + outputs) / 2, "width": 123}[fan]
    expected = 1.7**2 / (each * positions)
    assert torch.equal(model.bias, torch.zeros_like(model.bias))
    w = model.weight.detach().double()
    assert w.mean().abs() < 5 * math.sqrt(expected / w.numel())  # five standard errors
    if law == "rademacher":
        torch.testing.assert_close(w.square(), torch.full_like(w, expected), rtol=1e-6, atol=0)
        return
    kurtosis = {"normal": 3.0, "uniform": 1.8}[law]
    error = expected * math.sqrt((kurtosis - 1) / w.numel())
    assert (w.square().mean() - expected).abs() < 5 * error
    assert (w**4).mean() / expected**2 == pytest.approx(kurtosis, rel=0.05)
    if law == "uniform":
        bound = math.sqrt(3 * expected)
        assert 0.999 * bound < w.abs().max() <= bound * (1 + 1e-6)


def test_he_and_xavier_are_the_published_laws() -> None:
    model = nn.Linear(400, 100)
    for name, variance in (("he", 2 / 400), ("xavier", 2 / (400 + 100))):
        load(name)(model, generator=generator(), width=1)
        assert model.weight.var().item() == pytest.approx(variance, rel=0.04)
        assert model.bias.abs().max() == 0


@pytest.mark.parametrize("law", LAWS)
def test_fixed_std_is_that_of_weights_and_biases(law: str) -> None:
    model = nn.Sequential(nn.Linear(100, 300), nn.Linear(5, 30_000))
    Independent(law, std=0.1)(model, generator=generator(), width=1)  # type: ignore[arg-type]
    for p in model.parameters():
        assert p.square().mean().sqrt().item() == pytest.approx(0.1, rel=5 / math.sqrt(p.numel()))
    Independent(law, std=0.0)(model, generator=generator(), width=1)  # type: ignore[arg-type]
    assert vector(model).abs().max() == 0


def test_small_normal_is_a_tenth() -> None:
    assert load("small_normal") == Independent("normal", std=0.1)


def test_sphere_has_its_radius_and_no_preferred_direction() -> None:
    model = MLP((2,), 2, base_width=2, depth=3, bias=True)
    points = []
    for seed in range(2000):
        Sphere(radius=3.0)(model, generator=generator(seed), width=2)
        points.append(vector(model))
    stacked = torch.stack(points)
    n = stacked.shape[1]
    torch.testing.assert_close(stacked.norm(dim=1), torch.full((2000,), 3.0).double())
    covariance = stacked.T @ stacked / 2000
    assert (covariance - 9 / n * torch.eye(n)).abs().max() < 6 * 9 / n * math.sqrt(2 / 2000)
    assert stacked.mean(0).abs().max() < 5 * 3 / math.sqrt(n * 2000)


def test_sphere_without_a_radius_has_the_length_of_draws_of_a_tenth() -> None:
    model = nn.Linear(30, 20)
    load("sphere")(model, generator=generator(), width=1)
    assert vector(model).norm().item() == pytest.approx(0.1 * math.sqrt(30 * 20 + 20))


@pytest.mark.parametrize("init", [Independent("normal"), Independent("normal", std=0.1), Sphere(), Sphere(2.0)])
def test_normalisation_layers_keep_one_and_zero(init: Init) -> None:
    for norm in (nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([3, 3]), nn.RMSNorm([3, 3])):
        init(nn.Sequential(nn.Linear(2, 2), norm), generator=generator(), width=1)
        for name, p in norm.named_parameters():
            assert torch.equal(p, torch.ones_like(p) if name == "weight" else torch.zeros_like(p))


def test_other_layers_are_drawn_and_other_vectors_kept() -> None:
    recurrent: Any = nn.LSTM(3, 5)
    embedding, slope = nn.Embedding(7, 5), nn.PReLU()
    model = nn.Sequential(recurrent, embedding, slope)
    Independent("rademacher")(model, generator=generator(), width=1)
    assert (recurrent.weight_hh_l0.abs() - 5**-0.5).abs().max() < 1e-6
    assert recurrent.bias_hh_l0.abs().max() == 0
    assert (embedding.weight.abs() - 5**-0.5).abs().max() < 1e-6
    assert slope.weight.item() == 0.25


def test_a_shared_weight_is_drawn_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    tied = nn.Sequential(first, second)
    Sphere(radius=1.0)(tied, generator=generator(), width=1)
    assert vector(tied).norm().item() == pytest.approx(1)


# Those that are drawn; the one that is built from the data has tests of its own.
INITS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "interpolating")


@pytest.mark.parametrize("name", INITS)
def test_depends_on_the_generator_alone_and_leaves_the_global_state(name: str) -> None:
    first, second = CifarResNet((3, 8, 8), 5, blocks=1), CifarResNet((3, 8, 8), 5, blocks=1)
    if name == "default":
        second.load_state_dict(first.state_dict())
    torch.manual_seed(7)
    load(name)(first, generator=generator(1), width=16)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(8)
    load(name)(second, generator=generator(1), width=16)
    assert torch.equal(vector(first), vector(second))
    load(name)(second, generator=generator(2), width=16)
    assert torch.equal(vector(first), vector(second)) == (name == "default")


@pytest.mark.parametrize("name", [name for name in INITS if name != "default"])
def test_precisions_start_at_the_same_point(name: str) -> None:
    single, double = MLP((5,), 3, bias=True), MLP((5,), 3, bias=True).double()
    load(name)(single, generator=generator(), width=50)
    load(name)(double, generator=generator(), width=50)
    torch.testing.assert_close(vector(single), vector(double), rtol=1e-6, atol=0)
    assert all(p.dtype == torch.float64 and p.requires_grad for p in double.parameters())


def test_default_keeps_everything() -> None:
    model = nn.Linear(3, 3)
    before = vector(model)
    Default()(model, generator=generator(), width=1)
    assert torch.equal(before, vector(model))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_refuses_numbers_out_of_range(bad: float) -> None:
    with pytest.raises(BadInput, match=r"init\.gain should be a number > 0, found"):
        Independent("normal", gain=bad)
    with pytest.raises(BadInput, match=r"init\.radius should be a number > 0, found"):
        Sphere(radius=bad)


def test_refuses_a_negative_std_and_unknown_choices() -> None:
    with pytest.raises(BadInput, match=r"init\.std should be null or a number >= 0, found -0.1"):
        Independent("normal", std=-0.1)
    with pytest.raises(BadInput, match=r"init\.law should be one of normal, uniform, rademacher, found cauchy"):
        Independent("cauchy")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"init\.fan should be one of in, out, average, width, found all"):
        Independent("normal", fan="all")  # type: ignore[arg-type]
