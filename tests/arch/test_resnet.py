import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import nn

from runner.arch.resnet import BottleneckResNet, CifarResNet
from runner.errors import BadInput

# One block in each stage: enough for shapes and options.
SMALL: dict[str, Callable[..., Any]] = {
    "cifar": partial(CifarResNet, blocks=1, width=0.3),
    "bottleneck": partial(BottleneckResNet, blocks=[1, 1, 1], width=0.05),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("shortcut", "parameters"), [("projection", 764_404), ("identity", 761_652)])
def test_parameter_count_of_the_cifar_form(shortcut: str, parameters: int) -> None:
    model = CifarResNet((3, 32, 32), 100, shortcut=shortcut)  # type: ignore[arg-type]
    assert count(model) == parameters
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) or getattr(m, "kernel_size", 0) == (3, 3)]
    assert len(layers) == 50


def test_parameter_count_of_the_bottleneck_form_is_torchvisions_but_for_the_stem() -> None:
    reference = torchvision.models.resnet50(num_classes=100)
    expected = count(reference) - 64 * 3 * (7 * 7 - 3 * 3)
    assert count(BottleneckResNet((3, 32, 32), 100, blocks=[3, 4, 6, 3])) == expected


def test_bottleneck_form_computes_what_torchvisions_does() -> None:
    """With torchvision's weights, stem and pooling made alike: the same outputs."""
    reference = torchvision.models.resnet50(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    model = BottleneckResNet((3, 8, 8), 10, blocks=[3, 4, 6, 3])
    copy_in_order_of_shapes(reference, model)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-4)


def copy_in_order_of_shapes(source: nn.Module, target: nn.Module) -> None:
    """Parameters come in the order of use in both, the branch of a block before its shortcut."""
    for theirs, ours in zip(source.parameters(), target.parameters(), strict=True):
        assert theirs.shape == ours.shape
        ours.data.copy_(theirs.data)


@pytest.mark.parametrize("form", SMALL)
@pytest.mark.parametrize(
    ("norm", "shortcut", "residual", "activation"),
    [
        *itertools.product(("none", "batch", "layer", "group"), ("projection", "identity"), (True, False), ("relu",)),
        *itertools.product(("batch",), ("projection",), (True,), ("identity", "tanh", "softplus", "gelu", "smoolu")),
    ],
)
def test_every_option_trains(form: str, norm: str, shortcut: str, residual: bool, activation: str) -> None:
    model = SMALL[form]((2, 9, 7), 5, norm=norm, shortcut=shortcut, residual=residual, activation=activation)
    outputs = model(torch.randn(3, 2, 9, 7, generator=torch.Generator().manual_seed(0)))
    assert outputs.shape == (3, 5)
    outputs.square().mean().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients if g is not None)


@pytest.mark.parametrize("form", SMALL)
def test_images_of_any_size_and_channels(form: str) -> None:
    for shape in ((1, 28, 28), (3, 64, 64), (4, 1, 5)):
        assert SMALL[form](shape, 3, norm="layer")(torch.zeros(2, *shape)).shape == (2, 3)


def test_stages_halve_the_image_and_double_the_kernels() -> None:
    model = CifarResNet((3, 32, 32), 10, blocks=2, width=1.5)
    x, shapes = model.stem(torch.zeros(2, 3, 32, 32)), []
    for block in model.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(24, 32, 32)] * 2 + [(48, 16, 16)] * 2 + [(96, 8, 8)] * 2


def test_identity_shortcut_keeps_every_second_pixel_and_adds_empty_channels() -> None:
    model = CifarResNet((3, 8, 8), 10, blocks=1, shortcut="identity")
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model.blocks[1].get_submodule("shortcut")(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert torch.equal(y[:, 16:], torch.zeros(2, 16, 4, 4))


def test_convolutions_have_a_bias_exactly_where_no_normalisation_follows() -> None:
    for norm, biased in (("none", True), ("batch", False), ("group", False)):
        model = SMALL["cifar"]((3, 8, 8), 10, norm=norm)
        assert all((m.bias is not None) == biased for m in model.modules() if isinstance(m, nn.Conv2d))


def test_activations_stay_bounded_with_depth_without_normalisation() -> None:
    model = CifarResNet((3, 8, 8), 10, norm="none", width=0.5)
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu", generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    h = model.stem(x)
    assert model.blocks(h).square().mean() < 100 * h.square().mean()


@pytest.mark.parametrize("form", SMALL)
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((50,), {}, "ResNet needs images"),
        ((3, 8, 8), {"shortcut": "conv"}, "arch.shortcut"),
        ((3, 8, 8), {"norm": "instance"}, "arch.norm"),
        ((3, 8, 8), {"activation": "swish"}, "arch.activation"),
        ((3, 8, 8), {"width": -1.0}, "width should be a positive number"),
        ((3, 8, 8), {"outputs": 0}, "arch.outputs"),
    ],
)
def test_refuses(form: str, shape: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SMALL[form](shape, **{"outputs": 3, **options})


def test_refuses_stages_without_blocks() -> None:
    with pytest.raises(BadInput, match=r"arch\.blocks"):
        CifarResNet((3, 8, 8), 3, blocks=0)
    with pytest.raises(BadInput, match=r"arch\.blocks"):
        BottleneckResNet((3, 8, 8), 3, blocks=[])
