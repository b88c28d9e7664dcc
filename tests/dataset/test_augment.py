import itertools

import torch
from torch import Tensor

from runner.dataset.augment import crop_flip


def one_image(image: Tensor, row: int, column: int, flip: bool, padding: int) -> Tensor:
    """The slow reference: a window of a padded image, pixel by pixel."""
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for c, y, x in itertools.product(range(channels), range(height), range(width)):
        source_y, source_x = y + row - padding, x + column - padding
        if 0 <= source_y < height and 0 <= source_x < width:
            out[c, y, width - 1 - x if flip else x] = image[c, source_y, source_x]
    return out


def test_every_crop_and_flip() -> None:
    padding = 2
    draws = list(itertools.product(range(2 * padding + 1), range(2 * padding + 1), (False, True)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (len(draws), 3, 4, 6), dtype=torch.uint8, generator=generator)
    before = images.clone()
    rows, columns, flips = (torch.tensor(values) for values in zip(*draws, strict=True))
    result = crop_flip(images, torch.stack([rows, columns], 1), flips, padding)
    assert result.dtype == torch.uint8
    assert torch.equal(images, before)
    for image, row, column, flip, found in zip(images, rows, columns, flips, result, strict=True):
        assert torch.equal(found, one_image(image, int(row), int(column), bool(flip), padding))


def test_nothing_is_done_in_the_middle() -> None:
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    still = crop_flip(images, torch.full((5, 2), 4), torch.zeros(5, dtype=torch.bool), 4)
    assert torch.equal(still, images)
