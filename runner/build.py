"""From a config to the objects of a run. Here, and nowhere later, input is refused."""

import inspect
import math
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from runner.arch.scaled import scaled
from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss
from runner.dataset.base import Dataset
from runner.dataset.batches import Batch, Batches
from runner.errors import BadInput
from runner.probe.base import Probe
from runner.schedule import Schedule
from runner.seeds import derived
from runner.targets import check, make
from runner.task import Task

CHECKED_SAMPLES = 4
NETWORK_GIVEN = ("input_shape", "outputs", "width")


@dataclass
class Experiment:
    """All that the loop needs, and no config."""

    model: nn.Module
    loss_fn: nn.Module
    task: Task
    batches: Batches
    optimizer: torch.optim.Optimizer
    rates: list[float]  # the initial rate of each parameter group
    schedule: Schedule
    probes: dict[str, Probe]
    seed: int
    steps: int
    log_every: int
    eval_every: int
    clip_norm: float | None
    precision: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters, and of probes that do not ask for another."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    @property
    def mixed(self) -> bool:
        """Training runs under bf16 autocast, so its gradient is not the one that probes use."""
        return self.precision == "bf16"

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs in training's arithmetic; in fp32 or more whatever that is, since the loss follows."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            return self.model(inputs).to(self.dtype)

    def seed_draws(self, step: int) -> None:
        """Dropout masks and whatever else the network draws at a step are a pure function of (seed, step)."""
        torch.manual_seed(derived(self.seed, "draws", step))

    def targets(self, batch: Batch) -> Tensor:
        return self.task.targets(batch.labels, self.dtype)


def check_knobs(cfg: DictConfig) -> None:
    """Refuse impossible values of the flat knobs."""
    if not cfg.width > 0:
        raise BadInput(f"width should be a number > 0 (it multiplies arch.base_width), found {cfg.width}")
    for key, least in (("epochs", 0), ("steps", 0), ("batch_size", 1), ("log_every", 1), ("eval_every", 1)):
        if cfg[key] is not None and cfg[key] < least:
            raise BadInput(f"{key} should be at least {least}, found {cfg[key]}")
    for key in ("clip_norm", "checkpoint_minutes"):
        if cfg[key] is not None and not cfg[key] > 0:
            raise BadInput(f"{key} should be a number > 0, found {cfg[key]}")
    if not 0 <= cfg.seed < 2**63:
        raise BadInput(f"seed should be an integer from 0 to 2^63 - 1, found {cfg.seed}")
    if cfg.precision not in ("fp32", "fp64", "bf16"):
        raise BadInput(f"precision should be fp32, fp64 or bf16, found {cfg.precision}")


def check_config(cfg: DictConfig) -> None:
    """Refuse what can be told from the config alone, without data or network: knobs, device, keys, types, values."""
    check_knobs(cfg)
    device_of(cfg.device, cfg.precision)
    check(cfg.dataset, "dataset")
    check(cfg.arch, "arch", given=NETWORK_GIVEN)
    check(cfg.optimizer, "optimizer", given=("params",))
    for group in ("init", "loss", "schedule"):
        make(cfg[group], group)
    for name, node in cfg.probe.items():
        make(node, f"probe.{name}")


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


def build(cfg: DictConfig) -> Experiment:
    """The experiment that a composed config describes. Raises BadInput for whatever does not fit together."""
    check_config(cfg)
    device = device_of(cfg.device, cfg.precision)
    dtype = torch.float64 if cfg.precision == "fp64" else torch.float32
    probes = {str(name): make(node, f"probe.{name}") for name, node in cfg.probe.items()}
    schedule = make(cfg.schedule, "schedule")
    loss_fn = make(cfg.loss, "loss").to(device, dtype)
    dataset = make(cfg.dataset, "dataset")
    task = Task.of(dataset.classes, dataset.label_values, loss_fn, cfg.arch.get("outputs"))
    batches = Batches(dataset, batch_size=cfg.batch_size, seed=cfg.seed, device=device, dtype=dtype)
    for name, probe in probes.items():
        if "heldout" in probe.on:
            batches.require_heldout(name)
    model = network(cfg, dataset, task.outputs).to(device, dtype)
    optimizer = make(cfg.optimizer, "optimizer", params=[p for p in model.parameters() if p.requires_grad])
    check_optimizer(optimizer)
    experiment = Experiment(
        model=model,
        loss_fn=loss_fn,
        task=task,
        batches=batches,
        optimizer=optimizer,
        rates=[float(group["lr"]) for group in optimizer.param_groups],
        schedule=schedule,
        probes=probes,
        seed=cfg.seed,
        steps=cfg.epochs * batches.steps_per_epoch if cfg.steps is None else cfg.steps,
        log_every=cfg.log_every,
        eval_every=cfg.eval_every or batches.steps_per_epoch,
        clip_norm=cfg.clip_norm,
        precision=cfg.precision,
        device=device,
    )
    check_fit(experiment, dataset.train.labels)
    prepare_probes(experiment)
    return experiment


def network(cfg: DictConfig, dataset: Dataset, outputs: int) -> nn.Module:
    """The network of the config with its parameters drawn, on the CPU in fp32."""
    initialise = make(cfg.init, "init")
    with randomness.preserved(torch.device("cpu")):
        torch.manual_seed(derived(cfg.seed, "network"))
        shape = tuple(dataset.train.inputs.shape[1:])
        model = make(cfg.arch, "arch", input_shape=shape, outputs=outputs, width=cfg.width)
    if not isinstance(model, nn.Module):
        raise BadInput(f"arch._target_={cfg.arch._target_} should make a torch.nn.Module, found {type(model).__name__}")
    generator = torch.Generator().manual_seed(derived(cfg.seed, "init"))
    units = scaled(cfg.arch.get("base_width") or 1, cfg.width)
    initialise(model, generator=generator, width=units)
    return model


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """A finite rate, and steps from one gradient."""
    if not all(math.isfinite(group["lr"]) for group in optimizer.param_groups):
        raise BadInput(f"optimizer.lr should be a finite number, found {[g['lr'] for g in optimizer.param_groups]}")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise BadInput(
            f"optimizer: {type(optimizer).__name__} evaluates the loss several times a step, which is not supported"
        )


def check_fit(run: Experiment, labels: Tensor) -> None:
    """Small forward passes and a loss: do network, loss and data fit together, down to the last batch of an epoch?"""
    if labels.min() < 0 or labels.max() >= run.task.classes:
        raise BadInput(
            f"dataset: labels should be in 0 … {run.task.classes - 1}, found {int(labels.min())} … {int(labels.max())}"
        )
    batch = run.batches(0)
    run.model.eval()
    try:
        with randomness.preserved(run.device), torch.no_grad():
            outputs = run.model(batch.inputs[:2])
    except Exception as error:
        shape = tuple(batch.inputs[:2].shape)
        raise BadInput(f"arch: the network cannot take inputs of shape {shape}: {error}") from error
    finally:
        run.model.train()
    run.task.check(outputs, batch.labels[:2])
    loss = few_samples(run)
    try:
        loss.gradient()
    except Exception as error:
        count = len(loss.inputs)
        advice = "; the last batch of an epoch is this small: choose another batch_size" if count == 1 else ""
        raise BadInput(f"arch: the network cannot be trained on a batch of {count} samples: {error}{advice}") from error


def few_samples(run: Experiment) -> BatchLoss:
    """The loss, in training mode, of as many samples as the smallest batch of an epoch has, four at most."""
    smallest = min(len(run.batches(step).labels) for step in (0, run.batches.steps_per_epoch - 1))
    batch, count = run.batches(0), min(smallest, CHECKED_SAMPLES)
    few = Batch(batch.inputs[:count], batch.labels[:count])
    return BatchLoss(run.model, run.loss_fn, few.inputs, run.targets(few), run.dtype)


def prepare_probes(run: Experiment) -> None:
    """Can each probe measure this network, as far as a few samples tell?"""
    batch, loss = run.batches(0), few_samples(run)
    for name, probe in run.probes.items():
        planned = sum(probe.cadence.due(s, run.batches.steps_per_epoch, run.steps) for s in range(run.steps + 1))
        try:
            probe.prepare(loss, len(batch.labels), planned)
        except BadInput as error:
            raise BadInput(f"probe.{name}: {error}") from error
