"""Random crops and flips, a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Pads images (N, C, H, W) with `padding` zeros on every side and cuts an H x W window out of each, image
    n's beginning at row offsets[n, 0] and column offsets[n, 1]; then mirrors it left to right where flips[n].

    `offsets` (N, 2), int64, from 0 to 2 `padding`; `flips` (N,), bool.
    """
    n, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flips[:, None], columns.flip(0), columns) + offsets[:, 1:]
    rows = torch.arange(height, device=images.device) + offsets[:, :1]
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    pixels = pixels.view(n, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, pixels).view_as(images)
