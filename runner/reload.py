"""A run taken up again from its files: its config, the networks that it kept, and what the probes see there.

    cfg = reload.probing(reload.config(folder), ["probe=[split]", "probe.split.on=[dataset]"])
    run = reload.experiment(cfg)
    for saved in reload.networks(folder, cfg):
        cells, at = reload.measurement(run, saved)
        cells |= at.cells("split", run.probes["split"])

Nothing is written, and no snapshot is read before it is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from runner import checkpoint
from runner.build import build
from runner.cells import Cells
from runner.config import CONF_DIR, Config
from runner.errors import BadInput
from runner.experiment import Experiment
from runner.kept import parsed
from runner.measure import Measurement
from runner.networks import fill
from runner.train import forward_backward, set_rate
from runner.wording import message


class Saved(NamedTuple):
    """A network that a run kept after `step` updates. `read()`: its parameters and buffers by name, on the CPU."""

    step: int
    replica: int
    read: Callable[[], dict[str, Tensor]]


def config(folder: str | Path, **knobs: str | None) -> DictConfig:
    """The config that a run was made with. `knobs`: others for this machine, `device` and `data_root`; None: the same.
    Raises BadInput if there is none."""
    path = Path(folder) / ".hydra" / "config.yaml"
    if not path.is_file():
        raise BadInput(f"{folder} should be a run's folder, found no .hydra/config.yaml in it")
    given = {key: value for key, value in knobs.items() if value is not None}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path), given)
    except OmegaConfBaseException as error:
        raise BadInput(f"{path} should be a config of this version: {message(error)}") from error
    assert isinstance(merged, DictConfig)
    return merged


def probing(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The run's config with other probes, none of its own: `probe=[…]` and `probe.<name>.<key>=…`, for probes that are
    not this package's also `hydra.searchpath=[folder]`."""
    if odd := [one for one in overrides if not one.startswith(("probe=", "probe.", "hydra.searchpath="))]:
        raise BadInput(f"overrides should be probe=[…] and probe.<name>.<key>=…, found {odd[0]}")
    if not any(override.startswith("probe=") for override in overrides):
        raise BadInput("overrides should name the probes by probe=[…], found no probe=")
    try:
        with initialize_config_dir(CONF_DIR, version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(message(error)) from error
    cfg = cfg.copy()
    cfg.probe = composed.probe
    return cfg


def experiment(cfg: DictConfig, replica: int = 0) -> Experiment:
    """What the config describes, in its initial state, on one device and not compiled; of several replicas, one: the
    run with the seed `seed + r`. Raises BadInput where the loss of one device is not that of several."""
    devices, cfg = cfg.devices, cfg.copy()
    cfg.seed, cfg.replicas, cfg.devices, cfg.compile = cfg.seed + replica, 1, 1, False
    run = build(cfg)
    if devices > 1 and (own := [module for module in run.model.modules() if by_device(module, cfg.sync_batch_norm)]):
        raise BadInput(
            f"devices should have been 1 for a run that is measured again, or sync_batch_norm=true and no dropout, "
            f"found {devices}, each with statistics or draws of its own in {type(own[0]).__name__}"
        )
    return run


def by_device(module: nn.Module, synchronised: bool) -> bool:
    """Whether what the module does to a part of a batch depends on the device that the part is on."""
    if isinstance(module, _BatchNorm):
        return not synchronised
    return isinstance(module, _DropoutNd) and module.p > 0


def snapshots(folder: str | Path) -> list[Saved]:
    """What `probe=snapshot` kept, by replica and step."""
    found = []
    for path in (Path(folder) / "snapshot").glob("*.pt"):
        if kept := parsed(path):
            found.append(Saved(kept.step, kept.replica, partial(_read, path)))
    return sorted(found, key=lambda saved: (saved.replica, saved.step))


def networks(folder: str | Path, cfg: DictConfig) -> list[Saved]:
    """The run's snapshots, by replica and step; without any the networks of its last checkpoint. Raises BadInput if
    there is neither."""
    if found := snapshots(folder):
        return found
    state, complaints = checkpoint.load(Path(folder))
    if state is None:
        wanted = f"{folder} should hold snapshots (probe=snapshot) or a checkpoint, found none"
        raise BadInput("; ".join([wanted, *complaints]))
    if cfg.replicas == 1:
        return [Saved(state["step"], 0, lambda: state["model"])]
    return [_of_stack(state, replica) for replica in range(cfg.replicas)]


def _of_stack(state: dict[str, Any], replica: int) -> Saved:
    """A replica's network in a checkpoint of several, as it was when it stopped if it has."""
    step = state["outcomes"][replica][1] if replica in state["outcomes"] else state["step"]
    return Saved(step, replica, lambda: {name: entry[replica] for name, entry in state["model"].items()})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        model: dict[str, Tensor] = {**content["model"], **content.get("unsaved", {})}
    except Exception as error:
        raise BadInput(f"{path} should be a snapshot, and cannot be read: {str(error).splitlines()[0]}") from error
    return model


@torch.no_grad()
def take_up(model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the network these parameters and buffers. Raises BadInput if they are another network's."""
    own, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for name, entry in {**own, **buffers}.items():
        if name not in state or (name in own and state[name].shape != entry.shape):
            found = f"of the shape {tuple(state[name].shape)}" if name in state else "nothing"
            raise BadInput(f"the saved network should have {name} of the shape {tuple(entry.shape)}, found {found}")
        fill(entry, state[name])


def measurement(run: Experiment, saved: Saved) -> tuple[Cells, Measurement]:
    """The row of metrics.csv and what probes see at the saved network, after the backward pass on the batch of its
    step, as in the training loop.

    The numbers are the run's own. Nothing is evaluated on the test set.
    """
    take_up(run.model, saved.read())
    buffers = {name: one.clone() for name, one in run.model.named_buffers()}
    run.model.train()
    known = run.schedule.measures is None  # else the rate follows from the whole path: its cells stay empty
    batch, lr = run.batches(saved.step), set_rate(run, saved.step) if known else 0.0
    loss, error, grad_norm = forward_backward(run, saved.step, batch)
    cells: Cells = {"step": saved.step, "epoch": run.batches.epoch(saved.step)}
    cells |= {"replica": saved.replica, "lr": lr if known else None}
    cells |= {"train_loss": loss, "train_error": error, "grad_norm": grad_norm}
    return cells, Measurement(run, saved.step, batch, lr, buffers=buffers)
