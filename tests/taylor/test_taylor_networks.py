"""Networks composed at random out of supported operations, and those of torchvision."""

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from taylor_oracle import assert_split
from torch import Tensor, nn

Step = Callable[[], nn.Module]


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Sum(nn.Module):
    """x + body(x), or the two side by side, or their product."""

    def __init__(self, body: nn.Module, form: str) -> None:
        super().__init__()
        self.body, self.form = body, form

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.form == "in_place":
            y += x
            return y
        if self.form == "cat":
            return torch.cat([x[:, :2], y[:, 2:]], 1)
        return x * y.sigmoid() if self.form == "gate" else torch.stack([x, y]).mean(0)


class Tokens(nn.Module):
    """A module for sequences, on maps (N, 4, 4, 4)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x.flatten(2).transpose(1, 2))
        y = y[0] if isinstance(y, tuple) else y
        return y.mT.reshape(x.shape)


ACTIVATIONS: list[Step] = [
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Softsign,
    nn.LogSigmoid,
    nn.ReLU6,
    nn.Tanhshrink,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.Softmax(1),
]
LAYERS: list[Step] = [
    lambda: nn.Conv2d(4, 4, 3, padding=1),
    lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False),
    lambda: nn.Conv2d(4, 4, 1),
    lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
    lambda: Tokens(nn.Linear(4, 4)),
    lambda: Tokens(nn.GRU(4, 4, batch_first=True)),
    lambda: Tokens(nn.TransformerEncoderLayer(4, 2, 5, 0.0, batch_first=True)),
    lambda: Tokens(nn.LSTM(4, 4, batch_first=True)),
]
NORMS: list[Step] = [
    lambda: nn.BatchNorm2d(4),
    lambda: nn.GroupNorm(2, 4),
    lambda: nn.InstanceNorm2d(4, affine=True),
    lambda: nn.LayerNorm((4, 4, 4)),
    lambda: Tokens(nn.LayerNorm(4)),
    lambda: Tokens(nn.RMSNorm(4, eps=1e-5)),
    lambda: nn.LocalResponseNorm(2),
    nn.Identity,
]
MOVES: list[Step] = [
    lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(3, 1, 1),
    lambda: nn.Dropout(0.2),
    lambda: nn.Dropout2d(0.2),
    lambda: Lambda(lambda x: x.roll(1, 2)),
    lambda: Lambda(lambda x: F.pad(x, (1, 0, 0, 1))[:, :, 1:, :-1]),
    lambda: Lambda(lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)),
    lambda: Lambda(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    lambda: Lambda(lambda x: x / (1 + x.square().mean((2, 3), keepdim=True))),
    lambda: Lambda(lambda x: x - x.logsumexp(1, keepdim=True)),
    lambda: Lambda(lambda x: torch.einsum("nchw,nchv->nchw", x, x) / 4),
    lambda: Lambda(lambda x: F.normalize(x + 0.1, dim=1)),
    lambda: nn.ChannelShuffle(2),
]


def network(draw: random.Random) -> nn.Sequential:
    blocks: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1)]
    for _ in range(draw.randint(2, 4)):
        body = nn.Sequential(*(draw.choice(kind)() for kind in (LAYERS, NORMS, ACTIVATIONS, MOVES)))
        blocks.append(Sum(body, draw.choice(["in_place", "cat", "gate", "mean"])) if draw.random() < 0.6 else body)
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64, 3)).double()


@pytest.mark.parametrize("seed", range(40))
def test_random_network(seed: int) -> None:
    torch.manual_seed(seed)
    draw = random.Random(seed)
    model = network(draw).train(draw.random() < 0.7)
    loss = draw.choice([F.cross_entropy, lambda o, t: 0.5 * (o - F.one_hot(t, 3)).square().sum(1).mean()])
    assert_split(model, loss, torch.randn(5, 3, 4, 4).double(), torch.arange(5) % 3)


# name, side of the images; small ones for the plain run
SMALL = [("resnet18", 32)]
LARGE = [
    ("resnet50", 64),
    ("mobilenet_v3_small", 64),
    ("densenet121", 64),
    ("convnext_tiny", 32),
    ("vgg11_bn", 32),
    ("efficientnet_b0", 64),
    ("swin_t", 32),
    ("vit_b_16", 32),
]


class PlainHardsigmoid(nn.Module):
    """torch has no double backward of hardsigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


def with_double_backward(model: nn.Module) -> nn.Module:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Hardsigmoid):
                setattr(module, name, PlainHardsigmoid())
    return model


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("name", "side"),
    [pytest.param(*case, marks=pytest.mark.slow) for case in LARGE] + [pytest.param(*case) for case in SMALL],
)
def test_torchvision(name: str, side: int, train: bool) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, num_classes=5, **({"image_size": side} if "vit" in name else {}))
        if "vit" in name:
            nn.init.normal_(model.heads.head.weight, std=0.1)  # made of zeros
        return model.double().train(train)

    x, y = torch.randn(4, 3, side, side).double(), torch.arange(4)
    # the last maps of resnet18 are one pixel: batch norm over four numbers loses digits
    tolerance = 1e-8 if name == "resnet18" else 1e-10
    assert_split(make(), F.cross_entropy, x, y, tolerance, reference=with_double_backward(make()))
