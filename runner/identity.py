"""Which run a config is: a hash of what determines its numbers, and a folder name that ends in it."""

import copy
import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

# Where a run is written, where it computes, and how long it goes on do not make it another run. On how many devices it
# computes does: batch norm sees each one's part of a batch, and each one makes its own random draws.
_NOT_IDENTITY = (
    "name",
    "experiment",
    "scale",
    "device",
    "data_root",
    "epochs",
    "steps",
    "checkpoint_minutes",
    "logger",
    "sweep",
    "plan",
    "recipe",
)


def identity(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config without what does not change the numbers. A schedule that depends on the length of the run
    carries it under a key of its own, and so keeps it in the identity."""
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        cfg.pop("hydra", None)
        cfg.data_root = "data_root"
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    for key in ("verify", "download"):  # how the data come here, not what they are
        resolved["dataset"].pop(key, None)
    return {str(key): value for key, value in resolved.items() if key not in _NOT_IDENTITY}


def config_hash(cfg: DictConfig) -> str:
    """The first 10 hex digits of the SHA-256 of the identity."""
    text = json.dumps(identity(cfg), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_id(cfg: DictConfig) -> str:
    """`<data set>-<network>-width<k>-seed<s>-<hash>`"""
    names = [str(cfg[group]._target_).rsplit(".", 1)[-1].lower() for group in ("dataset", "arch")]
    return f"{names[0]}-{names[1]}-width{cfg.width:g}-seed{cfg.seed}-{config_hash(cfg)}"
