"""What can be refused by looking at the config alone, without data or network."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from runner.config import Config, SweepKnobs, Until
from runner.errors import BadInput
from runner.logger import check_loggers
from runner.runs import flatten
from runner.targets import check, make
from runner.wording import unknown

NETWORK_GIVEN = ("input_shape", "outputs", "width")  # what the builder of a network supplies


def check_knobs(cfg: DictConfig) -> None:
    """Refuse impossible values of the flat knobs."""
    if not 0 < cfg.width < math.inf:
        raise BadInput(f"width should be a finite number > 0 (it multiplies arch.base_width), found {cfg.width}")
    for key, least in (
        ("epochs", 0),
        ("steps", 0),
        ("replicas", 1),
        ("devices", 1),
        ("batch_size", 1),
        ("log_every", 1),
        ("eval_every", 1),
    ):
        if cfg[key] is not None and cfg[key] < least:
            raise BadInput(f"{key} should be at least {least}, found {cfg[key]}")
    if cfg.sweep.jobs_per_device < 1:
        raise BadInput(f"sweep.jobs_per_device should be at least 1, found {cfg.sweep.jobs_per_device}")
    for key in ("clip_norm", "checkpoint_minutes"):
        if cfg[key] is not None and not cfg[key] > 0:
            raise BadInput(f"{key} should be a number > 0, found {cfg[key]}")
    if cfg.until.grad_norm is not None and not cfg.until.grad_norm > 0:
        raise BadInput(f"until.grad_norm should be null or a number > 0, found {cfg.until.grad_norm}")
    if cfg.devices > 1 and cfg.replicas > 1:
        raise BadInput(
            f"devices should be 1 with replicas={cfg.replicas}, found {cfg.devices}; a sweep over seeds uses them all"
        )
    if cfg.compile and cfg.replicas > 1:
        raise BadInput(f"compile should be false with replicas={cfg.replicas}, which train side by side; found true")
    if not 0 <= cfg.seed <= 2**63 - cfg.replicas:
        raise BadInput(f"seed should be an integer from 0 to 2^63 - replicas, found {cfg.seed}")
    if not cfg.name or Path(cfg.name).is_absolute() or ".." in Path(cfg.name).parts:
        raise BadInput(f"name should be that of a folder below outputs/, found {cfg.name!r}; see also hydra.run.dir")
    if cfg.precision not in ("fp32", "fp64", "bf16"):
        raise BadInput(f"precision should be fp32, fp64 or bf16, found {cfg.precision}")
    if cfg.scale not in ("small", "paper"):
        raise BadInput(f"scale should be small or paper, the two forms of an experiment, found {cfg.scale}")


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that nothing reads, which Hydra adds to a config where they are given with a plus."""
    for where, node, known in (("", cfg, Config), ("until.", cfg.until, Until), ("sweep.", cfg.sweep, SweepKnobs)):
        if odd := sorted(set(node) - {field.name for field in fields(known)} - {"hydra"}):
            raise BadInput(unknown(where + odd[0]))


def check_numbers(cfg: DictConfig) -> None:
    """Refuse nan, which no key asks for: a run with it would end as one that diverged."""
    resolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    for key, value in flatten(resolved).items():
        if any(isinstance(one, float) and math.isnan(one) for one in (value if isinstance(value, list) else [value])):
            raise BadInput(f"{key} should be a number, found {value}")


def check_rate(cfg: DictConfig) -> None:
    """Refuse a negative rate, in words of torch's otherwise."""
    rate = cfg.optimizer.get("lr")
    if isinstance(rate, int | float) and not 0 <= rate < math.inf:
        raise BadInput(f"optimizer.lr should be a finite number >= 0, found {rate}")


def check_width(cfg: DictConfig) -> None:
    """Refuse a second word for the multiplier, which reads as if it were the number of units."""
    if "base_width" in cfg.arch and cfg.arch.get("width", cfg.width) != cfg.width:
        raise BadInput(
            f"arch.width should be left to width, the multiplier of arch.base_width, found {cfg.arch.width}: "
            f"width={cfg.arch.width}, or another arch.base_width"
        )


def check_config(cfg: DictConfig) -> None:
    """Refuse what can be told from the config alone, without data or network: knobs, device, keys, types, values."""
    check_keys(cfg)
    check_knobs(cfg)
    check_probes(cfg)
    check_loggers(cfg.logger)
    check_devices(cfg)
    check(cfg.dataset, "dataset")
    check(cfg.arch, "arch", given=NETWORK_GIVEN)
    check(cfg.optimizer, "optimizer", given=("params",))
    check_rate(cfg)
    check_width(cfg)
    for group in ("init", "loss", "schedule"):
        make(cfg[group], group)
    for name, node in cfg.probe.items():
        make(node, f"probe.{name}")
    check_numbers(cfg)


def check_probes(cfg: DictConfig) -> None:
    """Refuse probes that were set to something else, as one that was to be switched off, and keys for a probe that is
    not among those that measure, as an experiment has them for its own."""
    for name, node in cfg.probe.items():
        if not isinstance(node, DictConfig):
            raise BadInput(f"probe.{name} should be a probe's keys, found {node!r}; probe=[…] lists those that measure")
        if "_target_" not in node:
            key = next(map(str, node), "_target_")
            raise BadInput(
                f"probe.{name}.{key} needs the probe {name} among those that measure, found others: probe=[…,{name}], "
                f"or without the keys that are set for it: '~probe.{name}'"
            )


def check_devices(cfg: DictConfig) -> None:
    """Refuse a device that is not there, or fewer than there should be."""
    device = device_of(cfg.device, cfg.precision)
    if cfg.devices == 1 or device.type == "cpu":
        return
    if device.index is not None:
        raise BadInput(f"device should be auto, cpu or cuda with devices={cfg.devices}, found {cfg.device}")
    if (found := torch.cuda.device_count()) < cfg.devices:
        raise BadInput(f"devices should be at most {found}, the cuda devices that torch sees, found {cfg.devices}")


def device_of(name: str, precision: str = "fp32") -> torch.device:
    """The device that `device=` names; `auto` is the first cuda device if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device should be auto, cpu, cuda or cuda:<n>, found {name}") from error
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"device should be auto, cpu, cuda or cuda:<n>, found {name}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device={name} is not there: torch sees {torch.cuda.device_count()} cuda devices; use device=cpu"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BadInput(f"precision=bf16 is not supported by {torch.cuda.get_device_name(device)}; use precision=fp32")
    return device
