"""Checkpoints that are whole or not there: written aside, synced, renamed; the previous one kept."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint. At every instant at least one whole checkpoint is there, if there was one."""
    aside = folder / f"{NAME}.tmp"
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if (folder / NAME).exists():
        os.replace(folder / NAME, folder / PREVIOUS)
    os.replace(aside, folder / NAME)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint, or None, and a sentence for each that was passed over.

    torch.load does not check what it reads; the zip archive that a checkpoint is carries a CRC for every tensor.
    """
    complaints: list[str] = []
    for name in (NAME, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                if (broken := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
            return torch.load(path, map_location="cpu", weights_only=True), complaints
        except Exception as error:
            complaints.append(f"{path} cannot be read ({error}); falling back to the one before it")
    return None, complaints
