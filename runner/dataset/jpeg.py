"""Many small JPEGs, decoded in parallel."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from runner.dataset import jpeg_worker
from runner.dataset.progress import progress
from runner.errors import BadInput

_CHUNK = 2000  # images for one process, which takes as long to start as to decode some hundred


def decode(read: Callable[[str], bytes], names: Sequence[str], side: int, label: str) -> Tensor:
    """The images that `read` returns for `names`, as colours: (N, 3, side, side), uint8; grey ones have three
    equal channels.

    Shows progress under `label`. Raises BadInput for what is no JPEG, or of another size.
    """
    images = torch.empty(len(names), 3, side, side, dtype=torch.uint8)

    def decode_chunk(start: int) -> int:
        chunk = names[start : start + _CHUNK]
        images[start : start + len(chunk)] = _in_a_process([read(name) for name in chunk], chunk, side)
        return len(chunk)

    # Threads that wait for processes: decoding holds Python's lock too often for threads alone, and workers of
    # multiprocessing would fork this process with all its threads, or run the user's script a second time.
    with progress(label, len(names), "items") as advance, ThreadPoolExecutor(_cores()) as pool:
        for done in pool.map(decode_chunk, range(0, len(names), _CHUNK)):
            advance(done)
    return images


def _in_a_process(files: list[bytes], names: Sequence[str], side: int) -> Tensor:
    command = [sys.executable, "-P", jpeg_worker.__file__, str(side)]
    done = subprocess.run(command, input=pickle.dumps(files), capture_output=True, check=False)
    if done.returncode == 3:
        number, _, reason = done.stderr.decode(errors="replace").strip().partition(" ")
        raise BadInput(f"{names[int(number)]} is no intact JPEG of {side} x {side} pixels: {reason}.")
    if done.returncode:
        raise RuntimeError(f"decoding JPEGs ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    pixels = torch.frombuffer(bytearray(done.stdout), dtype=torch.uint8)
    return pixels.view(len(files), side, side, 3).permute(0, 3, 1, 2)


def _cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
