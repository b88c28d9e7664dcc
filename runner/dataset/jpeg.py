"""Many small JPEGs, decoded in parallel."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from runner.dataset.progress import progress
from runner.errors import BadInput

_CHUNK = 64


def decode(read: Callable[[str], bytes], names: Sequence[str], side: int, label: str) -> Tensor:
    """The images that `read` returns for `names`, as colours: (N, 3, side, side), uint8; grey ones have three
    equal channels.

    Shows progress under `label`. Raises BadInput for what is no JPEG, or of another size.
    """
    images = torch.empty(len(names), 3, side, side, dtype=torch.uint8)

    def decode_chunk(start: int) -> int:
        chunk = range(start, min(start + _CHUNK, len(names)))
        for i in chunk:
            images[i] = _decode(read(names[i]), names[i], side)
        return len(chunk)

    with progress(label, len(names), "items") as advance, ThreadPoolExecutor() as pool:
        for done in pool.map(decode_chunk, range(0, len(names), _CHUNK)):
            advance(done)
    return images


def _decode(data: bytes, name: str, side: int) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg  # takes seconds to import, and only this needs it

    try:
        image: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"{name} is no intact JPEG: {error}.") from error
    if image.shape != (3, side, side):
        raise BadInput(f"{name} should be {side} x {side} pixels, found {image.shape[2]} x {image.shape[1]}.")
    return image
