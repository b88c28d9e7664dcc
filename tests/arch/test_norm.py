import pytest
import torch

from runner.arch.norm import groups, norm_layers
from runner.errors import BadInput


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, 1), (7, 1), (16, 2), (17, 1), (50, 5), (64, 8), (200, 25), (2048, 32)]
)
def test_groups_divide_the_channels_and_hold_eight_or_more(channels: int, expected: int) -> None:
    assert groups(channels) == expected


@pytest.mark.parametrize(("kind", "over"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3))])
def test_normalises_over(kind: str, over: tuple[int, ...]) -> None:
    (layer,) = norm_layers(kind, 16, dims=2)  # type: ignore[arg-type]
    y = layer(3 + 2 * torch.randn(8, 16, 5, 5, generator=torch.Generator().manual_seed(0)))
    assert y.mean(over).abs().max() < 1e-5
    assert (y.square().mean(over) - 1).abs().max() < 1e-3


def test_none_is_no_layer_and_unknown_is_refused() -> None:
    assert norm_layers("none", 16, dims=1) == []
    with pytest.raises(BadInput, match=r"arch.norm should be one of none, batch, layer, group, found instance"):
        norm_layers("instance", 16, dims=1)  # type: ignore[arg-type]
