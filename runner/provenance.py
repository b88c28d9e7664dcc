"""What a result needs beside it to be believed: versions, device, commit, settings."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.modules.batchnorm import _BatchNorm

from runner.arch.synchronised import SynchronisedBatchNorm
from runner.experiment import Experiment
from runner.identity import config_hash


def meta(cfg: DictConfig, run: Experiment) -> dict[str, Any]:
    """The fixed part of meta.json."""
    return {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "hash": config_hash(cfg),
        "versions": versions(),
        "device": device_name(run.device),
        "devices": run.ranks.count,
        **batch_norm(run),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "git_commit": git_commit(),
        "parameters": sum(p.numel() for p in run.model.parameters()) // len(run.networks.ids),
        "training_samples": run.batches.size,
        "training_data": run.batches.fingerprints[0],
        "test_data": run.batches.fingerprints[1],
        "steps_per_epoch": run.batches.steps_per_epoch,
    }


def batch_norm(run: Experiment) -> dict[str, str]:
    """What its statistics are of, where there is batch norm and several ranks share a batch."""
    kinds = {type(module) for module in run.model.modules() if isinstance(module, _BatchNorm)}
    if run.ranks.count == 1 or not kinds:
        return {}
    if kinds == {SynchronisedBatchNorm}:
        return {"batch_norm": "statistics of the whole batch, synchronised over the devices"}
    return {
        "batch_norm": "statistics of each device's own part of a batch: the loss is that of one process that averages "
        f"over {run.ranks.count} sub-batches; running statistics are the mean over the devices"
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
