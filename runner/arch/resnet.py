"""Residual networks for small images: the CIFAR form and the ImageNet form of He et al. (2016)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from runner.arch.activation import Activation, activation_layer
from runner.arch.norm import Norm, norm_layers
from runner.arch.scaled import scaled
from runner.errors import BadInput

Shortcut = Literal["projection", "identity"]


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common.

    `branch_scale` multiplies the branches that are added to shortcuts: 1, but 1 / sqrt(blocks) without
    normalisation, where each block would otherwise double the activations' mean square.
    """

    activation: Activation
    norm: Norm
    shortcut: Shortcut
    residual: bool
    branch_scale: float

    @classmethod
    def of(cls, activation: Activation, norm: Norm, shortcut: Shortcut, residual: bool, blocks: int) -> "Style":
        """The style of a network of `blocks` blocks."""
        if shortcut not in ("projection", "identity"):
            raise BadInput(f"arch.shortcut should be projection or identity, found {shortcut}.")
        return cls(activation, norm, shortcut, residual, 1 / math.sqrt(blocks) if norm == "none" else 1.0)


class ResNet(nn.Module):
    """A 3x3 stem, blocks, global average pooling, a linear head: (N, C, H, W) of any size to (N, outputs)."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], channels: int, outputs: int) -> None:
        super().__init__()
        if outputs < 1:
            raise BadInput(f"arch.outputs should be at least 1, found {outputs}.")
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, outputs)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class CifarResNet(ResNet):
    """The CIFAR form (He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2).

    Three stages of `blocks` basic blocks with 1, 2 and 4 times `scaled(base_width, width)` kernels (each
    rounded by itself), 6 * blocks + 2 weight layers: 50 with the default. 764,404 parameters at width 1 with
    100 classes and projection shortcuts (1x1 convolution and normalisation), 761,652 with the parameter-free
    ones of that section. Convolutions have a bias where no normalisation follows. `residual=False` is the
    plain network without shortcuts.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        width: float = 1.0,
        base_width: int = 16,
        blocks: int = 8,
        activation: Activation = "relu",
        norm: Norm = "batch",
        shortcut: Shortcut = "projection",
        residual: bool = True,
    ) -> None:
        counts = [blocks] * 3
        _check_blocks(counts)
        style = Style.of(activation, norm, shortcut, residual, sum(counts))
        channels = [scaled(base_width * 2**stage, width) for stage in range(3)]
        plan = _plan(channels[0], channels, counts)
        super().__init__(
            _stem(input_shape, channels[0], style),
            [Block(_basic(*shape, style), *shape, style) for shape in plan],
            channels[-1],
            outputs,
        )


class BottleneckResNet(ResNet):
    """The ImageNet form (He et al. 2016, table 1, 50-layer) with a stem for small images: 3x3, stride 1, no
    pooling.

    Four stages of `blocks` = [3, 4, 6, 3] bottleneck blocks (1x1, 3x3, 1x1 convolutions, the last with 4
    times the kernels); the stride is in the 3x3 convolution, as in torchvision. Options as in `CifarResNet`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        blocks: list[int],
        width: float = 1.0,
        base_width: int = 64,
        activation: Activation = "relu",
        norm: Norm = "batch",
        shortcut: Shortcut = "projection",
        residual: bool = True,
    ) -> None:
        _check_blocks(blocks)
        style = Style.of(activation, norm, shortcut, residual, sum(blocks))
        inner = [scaled(base_width * 2**stage, width) for stage in range(len(blocks))]
        plan = _plan(inner[0], [4 * channels for channels in inner], blocks)
        super().__init__(
            _stem(input_shape, inner[0], style),
            [Block(_bottleneck(*shape, style), *shape, style) for shape in plan],
            4 * inner[-1],
            outputs,
        )


class Block(nn.Module):
    """phi(shortcut(x) + branch_scale * branch(x)), or phi(branch(x)) where the style has no shortcuts."""

    def __init__(self, branch: nn.Sequential, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = _shortcut(inputs, outputs, stride, style) if style.residual else None
        self.scale = style.branch_scale
        self.activation = activation_layer(style.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        out = self.branch(x)
        if self.shortcut is not None:
            out = self.shortcut(x) + (out if self.scale == 1 else self.scale * out)
        return self.activation(out)


class Subsample(nn.Module):
    """The parameter-free shortcut (He et al., option A): every `stride`-th pixel, `extra` channels of zeros
    behind."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def _shortcut(inputs: int, outputs: int, stride: int, style: Style) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if style.shortcut == "identity":
        return Subsample(stride, outputs - inputs)
    return nn.Sequential(*_conv(inputs, outputs, 1, stride, style))


def _basic(inputs: int, outputs: int, stride: int, style: Style) -> nn.Sequential:
    return nn.Sequential(
        *_conv(inputs, outputs, 3, stride, style),
        activation_layer(style.activation),
        *_conv(outputs, outputs, 3, 1, style),
    )


def _bottleneck(inputs: int, outputs: int, stride: int, style: Style) -> nn.Sequential:
    inner = outputs // 4
    return nn.Sequential(
        *_conv(inputs, inner, 1, 1, style),
        activation_layer(style.activation),
        *_conv(inner, inner, 3, stride, style),
        activation_layer(style.activation),
        *_conv(inner, outputs, 1, 1, style),
    )


def _conv(inputs: int, outputs: int, kernel: int, stride: int, style: Style) -> list[nn.Module]:
    """A convolution that keeps the image's size (but for the stride), and the normalisation if any."""
    norm = norm_layers(style.norm, outputs, dims=2)
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not norm), *norm]


def _stem(input_shape: Sequence[int], channels: int, style: Style) -> nn.Sequential:
    if len(input_shape) != 3:
        raise BadInput(
            f"A ResNet needs images (channels, height, width), found samples of shape {tuple(input_shape)}:"
            " choose an image data set, or arch=mlp."
        )
    return nn.Sequential(*_conv(input_shape[0], channels, 3, 1, style), activation_layer(style.activation))


def _plan(stem: int, channels: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """(inputs, outputs, stride) of each block; every stage but the first starts with stride 2."""
    plan, inputs = [], stem
    for stage, (outputs, count) in enumerate(zip(channels, counts, strict=True)):
        for index in range(count):
            plan.append((inputs, outputs, 2 if stage > 0 and index == 0 else 1))
            inputs = outputs
    return plan


def _check_blocks(counts: Sequence[int]) -> None:
    if not counts or min(counts) < 1:
        raise BadInput(f"arch.blocks should be at least one block in each stage, found {list(counts)}.")
