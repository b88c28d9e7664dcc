"""What a result needs beside it to be believed: versions, device, commit, settings."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from runner.experiment import Experiment
from runner.identity import config_hash


def meta(cfg: DictConfig, run: Experiment) -> dict[str, Any]:
    """The fixed part of meta.json."""
    return {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "hash": config_hash(cfg),
        "versions": versions(),
        "device": device_name(run.device),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "git_commit": git_commit(),
        "parameters": sum(p.numel() for p in run.model.parameters()) // len(run.networks.ids),
        "steps_per_epoch": run.batches.steps_per_epoch,
    }


def versions() -> dict[str, str]:
    packages = ("runner", "torch", "torchvision", "hydra-core", "omegaconf", "pandas")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"cpu: {platform.processor() or platform.machine()}"


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with `+` if it was changed since; None outside of one."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", here], cwd=here, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit.stdout.strip()}{'+' if changed.stdout else ''}" if commit.returncode == 0 else None
