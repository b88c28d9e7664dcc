"""From a config to the objects of a run. Input is refused here, in `knobs` and in `fit`, and nowhere later."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from runner import fit, updating
from runner.arch.scaled import scaled
from runner.arch.synchronised import synchronise
from runner.closure import needs_closure
from runner.curvature import randomness
from runner.curvature.taylor.guards import compiled_parts
from runner.dataset.base import Dataset
from runner.dataset.batches import Batches
from runner.dataset.checks import check_dataset
from runner.errors import BadInput
from runner.experiment import Experiment
from runner.init import Data
from runner.knobs import check_config, device_of
from runner.networks import Networks, elementwise
from runner.probe.base import Probe
from runner.ranks import ALONE, Ranks
from runner.seeds import derived
from runner.targets import make, maker
from runner.task import Task

FUSED = tuple(f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW"))


def build(cfg: DictConfig, ranks: Ranks = ALONE) -> Experiment:
    """The experiment that a composed config describes, as this one of several `ranks` sees it. Raises BadInput for
    whatever does not fit together."""
    check_config(cfg)
    device = ranks.device(device_of(cfg.device, cfg.precision))
    dtype = torch.float64 if cfg.precision == "fp64" else torch.float32
    probes: dict[str, Probe] = {str(name): make(node, f"probe.{name}") for name, node in cfg.probe.items()}
    schedule = make(cfg.schedule, "schedule")
    loss_fn = make(cfg.loss, "loss").to(device, dtype)
    dataset = check_dataset(make(cfg.dataset, "dataset"))
    task = Task.of(dataset.classes, dataset.label_values, loss_fn, cfg.arch.get("outputs"))
    undivided = Batches(
        dataset, batch_size=cfg.batch_size, seed=cfg.seed, device=device, dtype=dtype, replicas=cfg.replicas
    )
    batches = undivided.part(ranks.rank, ranks.count)
    fit.check_places(probes, batches)
    networks = make_networks(cfg, dataset, task.outputs, partial(training_data, undivided, task), device, dtype)
    if cfg.sync_batch_norm and ranks.count > 1:
        synchronise(networks.model)
    if cfg.compile:
        check_compiler(device)
        networks.compile()
    optimizer = make_optimizer(cfg, networks)
    experiment = Experiment(
        networks=networks,
        loss_fn=loss_fn,
        task=task,
        batches=batches,
        undivided=undivided,
        optimizer=optimizer,
        rates=[float(group["lr"]) for group in optimizer.param_groups],
        schedule=schedule,
        probes=probes,
        seed=cfg.seed,
        steps=cfg.epochs * batches.steps_per_epoch if cfg.steps is None else cfg.steps,
        log_every=cfg.log_every,
        eval_every=cfg.eval_every or batches.steps_per_epoch,
        clip_norm=cfg.clip_norm,
        until_grad_norm=cfg.until.grad_norm,
        precision=cfg.precision,
        device=device,
        ranks=ranks,
    )
    fit.check(experiment)
    return experiment


def training_data(batches: Batches, task: Task) -> tuple[Tensor, Tensor]:
    """All training inputs as the network sees them, without augmentation, and their targets: real ones in float64, for
    losses of classes the classes."""
    parts = list(batches.whole())
    labels = torch.cat([part.labels for part in parts])
    targets = task.targets(labels, torch.float64) if task.encoding == "value" else labels
    return torch.cat([part.inputs for part in parts]), targets


def make_networks(
    cfg: DictConfig, dataset: Dataset, outputs: int, data: Data, device: torch.device, dtype: torch.dtype
) -> Networks:
    """The network of the config; with `replicas` those of the seeds `seed`, `seed` + 1, …, side by side."""
    shape = tuple(dataset.train.inputs.shape[1:])
    made = maker(cfg.arch, "arch", input_shape=shape, outputs=outputs, width=cfg.width)
    units = scaled(cfg.arch.get("base_width") or 1, cfg.width)
    initialise = partial(make(cfg.init, "init"), width=units, data=data)
    if cfg.replicas == 1:
        return Networks.alone(network(made, initialise, cfg.seed).to(device, dtype))
    drawn: Iterator[nn.Module] = (network(made, initialise, cfg.seed + r) for r in range(cfg.replicas))
    return Networks.stack(drawn, device, dtype)


def network(made: Callable[[], nn.Module], initialise: Callable[..., None], seed: int) -> nn.Module:
    """A network with its parameters drawn, on the CPU, in fp32 or as `init` leaves them."""
    with randomness.preserved(torch.device("cpu")):
        randomness.seed(derived(seed, "network"), torch.device("cpu"))
        model = made()
    if not isinstance(model, nn.Module):
        raise BadInput(f"arch._target_ should make a torch.nn.Module, found {type(model).__name__}")
    if lazy := [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]:
        raise BadInput(f"arch: layers should be given their sizes, found {lazy[0]}, which waits for a first pass")
    check_parameters(model)
    if compiled := compiled_parts(model):
        raise BadInput(
            "arch: modules should not be compiled, since they cannot be differentiated twice then, found "
            f"{compiled[0]}; compile=true compiles the network for training"
        )
    initialise(model, generator=torch.Generator().manual_seed(derived(seed, "init")))
    return model


def check_parameters(model: nn.Module) -> None:
    """Refuse what tables cannot name, and what the mathematics here is not for."""
    held = dict((*model.named_parameters(), *model.named_buffers()))
    if odd := [name for name, one in held.items() if one.is_complex()]:
        raise BadInput(f"arch: parameters and buffers should be real, found {odd[0]} in {held[odd[0]].dtype}")
    for name in (*(name for name, _ in model.named_modules()), *held):
        if not {",", '"', "\n", "\r"}.isdisjoint(name):
            raise BadInput(f"arch: names of modules should have no comma, quote or line break, found {name!r}")


def in_one_kernel(node: DictConfig, trained: Sequence[Tensor]) -> dict[str, bool]:
    """torch's optimizers update all parameters by one fused kernel, where they have one on every device and the config
    leaves the choice open. It rounds differently from the loop over parameters, and takes a tenth to the whole of its
    time."""
    chosen = any(node.get(key) is not None for key in ("foreach", "fused", "differentiable"))
    return {"fused": True} if node.get("_target_") in FUSED and not chosen and row_by_row(trained) else {}


def row_by_row(weights: Sequence[Tensor]) -> bool:
    """Whether the weights lie in memory as fused kernels read them and their gradients, with no look at the strides."""
    return all(w.is_contiguous() for w in weights)


def check_compiler(device: torch.device) -> None:
    """Can torch compile here at all?"""
    try:
        torch.compile(torch.neg, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:
        raise BadInput(
            f"compile should be false where torch.compile does not work on {device.type}, found true: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def make_optimizer(cfg: DictConfig, networks: Networks) -> torch.optim.Optimizer:
    """Of all parameters that train: with a finite rate, and fit for networks side by side if they are."""
    trained = [p for p in networks.model.parameters() if p.requires_grad]
    given = in_one_kernel(cfg.optimizer, trained)
    try:
        optimizer: torch.optim.Optimizer = make(cfg.optimizer, "optimizer", params=trained, **given)
    except (RuntimeError, IndexError) as error:  # torch's words for options that exclude each other, or are too short
        raise BadInput(f"optimizer: {error}") from error
    if any(group.get("fused") for group in optimizer.param_groups) and not row_by_row(trained):
        raise BadInput(
            "optimizer.fused should be false for weights that do not lie row by row in memory (channels_last, "
            "transposed, slices), which torch's kernel takes for others, found true"
        )
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise BadInput("optimizer.differentiable should be false, since weights are updated in place, found true")
    if not all(math.isfinite(group["lr"]) for group in optimizer.param_groups):
        raise BadInput(f"optimizer.lr should be a finite number, found {[g['lr'] for g in optimizer.param_groups]}")
    if networks.stacked and not elementwise(optimizer):
        raise BadInput(
            f"replicas={cfg.replicas} needs an elementwise optimizer (sgd, momentum, adam, …), found "
            f"{type(optimizer).__name__}; use a sweep over seeds"
        )
    if type(optimizer).__module__.startswith("torch.optim."):  # another one may count its steps, or draw
        try_out(cfg.optimizer, trained[0], given)
    return optimizer


def try_out(node: DictConfig, like: Tensor, given: dict[str, bool]) -> None:
    """Two steps on w'w / 2, at a rate of 1: some options show only there that they cannot be."""
    w = nn.Parameter(like.new_ones(2, 2))
    optimizer: torch.optim.Optimizer = make(node, "optimizer", params=[w], **given)
    optimizer.param_groups[0]["lr"] = 1.0

    def loss() -> float:
        w.grad = w.detach().clone()
        return float(w.detach().square().sum() / 2)

    try:
        for _ in range(2):
            loss()
            optimizer.step(loss) if needs_closure(optimizer) else updating.update(optimizer)
    except Exception as error:
        raise BadInput(
            f"optimizer: {type(optimizer).__name__} with these options fails in its first steps on a quadratic "
            f"function: {error or type(error).__name__}"
        ) from error
