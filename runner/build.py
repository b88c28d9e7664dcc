"""From a config to the objects of a run. Here and in runner.knobs, and nowhere later, input is refused."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from runner import closure
from runner.arch.scaled import scaled
from runner.arch.synchronised import synchronise
from runner.curvature import functional, randomness
from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.vectors import Vector, norm
from runner.dataset.base import Dataset
from runner.dataset.batches import Batches
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

CHECKED_SAMPLES = 4
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
    dataset = make(cfg.dataset, "dataset")
    task = Task.of(dataset.classes, dataset.label_values, loss_fn, cfg.arch.get("outputs"))
    undivided = Batches(
        dataset, batch_size=cfg.batch_size, seed=cfg.seed, device=device, dtype=dtype, replicas=cfg.replicas
    )
    batches = undivided.part(ranks.rank, ranks.count)
    check_places(probes, batches)
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
    check_fit(experiment, dataset.train.labels)
    closure.check(experiment)
    check_schedule(experiment)
    prepare_probes(experiment)
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
    initialise(model, generator=torch.Generator().manual_seed(derived(seed, "init")))
    return model


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
    except RuntimeError as error:  # torch's word for options that exclude each other
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
    return optimizer


def check_places(probes: dict[str, Probe], batches: Batches) -> None:
    """Are there the data, besides the training batch, that the probes look at?"""
    for name, probe in probes.items():
        if "heldout" in probe.on:
            batches.require_heldout(name)
        if "sample" in probe.on:
            batches.require_sample(name, probe.samples)


def check_fit(run: Experiment, labels: Tensor) -> None:
    """Small forward passes and a loss: do network, loss and data fit together, down to the last batch of an epoch?"""
    if labels.min() < 0 or labels.max() >= run.task.classes:
        raise BadInput(
            f"dataset: labels should be in 0 … {run.task.classes - 1}, found {int(labels.min())} … {int(labels.max())}"
        )
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    first = run.batches(0).first(2).rows(run.networks.first)
    run.model.eval()
    try:
        loss = run.batch_loss(first, 0, run.dtype, run.networks.first)
        with torch.no_grad():
            outputs = loss.outputs(loss.weights)
    except Exception as error:
        shape = tuple(first.inputs.shape)
        raise BadInput(f"arch: the network cannot take inputs of shape {shape}: {error}") from error
    finally:
        run.model.train()
    run.task.check(outputs, first.labels)
    loss = few_samples(run)
    try:
        loss.gradient()
    except Exception as error:
        count = len(loss.inputs)
        advice = "; the last batch of an epoch is this small: choose another batch_size" if count == 1 else ""
        raise BadInput(f"arch: the network cannot be trained on a batch of {count} samples: {error}{advice}") from error
    written = [name for name, p in run.model.named_parameters() if not torch.equal(p.detach(), before[name])]
    if written:
        raise BadInput(f"arch: the network should not write to its parameters in a forward pass, found {written}")
    if run.networks.stacked:
        check_side_by_side(run)
    else:
        check_function(run)


def check_function(run: Experiment) -> None:
    """Is what the probes measure the loss that is trained? Not where the network keeps parameters or a state outside of
    its modules', or draws random numbers elsewhere than by torch's global generators."""
    loss, model = few_samples(run), run.model
    trained: Vector = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    try:
        with randomness.preserved(run.device), randomness.only_of_torch(), functional.with_buffers(model, buffers):
            expected = loss.gradient()
            randomness.restore(loss.draws, run.device)
            found = gradient(loss.of_outputs(model(loss.inputs)), trained)
    except ValueError as error:
        raise BadInput(f"arch: {error}") from error
    size = norm(expected)
    far = [name for name, g in found.items() if (g - expected[name]).norm() > 1e-2 * size]
    if far:
        raise BadInput(
            "arch: the loss should be a function of the network's parameters and buffers, and of draws from torch's "
            f"global generators; at the same of all these found two gradients of {far[0]}"
        )


def check_side_by_side(run: Experiment) -> None:
    """Can the networks be computed at once, and how many?"""
    batch = run.batches(0)
    try:
        run.batch_loss(batch.first(2), 0, run.dtype, slice(0, 2)).gradient()
    except Exception as error:
        raise BadInput(
            f"replicas: this network or loss cannot be computed side by side, as one that draws random numbers cannot; "
            f"use a sweep over seeds ({error})"
        ) from error
    run.networks.fit(few_samples(run), len(batch))


def few_samples(run: Experiment) -> BatchLoss:
    """The loss, in training mode, of as many samples as the smallest batch of an epoch has, four at most; of the first
    network, if there are several."""
    smallest = min(len(run.batches(step)) for step in (0, run.batches.steps_per_epoch - 1))
    few = run.batches(0).first(min(smallest, CHECKED_SAMPLES))
    return run.batch_loss(few, 0, run.dtype, run.networks.first)


def check_schedule(run: Experiment) -> None:
    """A rate that follows from the curvature along g is one for steps along g, and for one network."""
    if run.schedule.measures is None:
        return
    name, optimizer = type(run.schedule).__name__, run.optimizer
    if run.networks.stacked:
        raise BadInput(
            f"replicas should be 1 with the schedule {name}, since one optimizer has one rate for all of them, found "
            f"{len(run.networks.ids)}; use a sweep over seeds"
        )
    keys = {
        key: value for key in ("momentum", "weight_decay", "maximize") if (value := optimizer.param_groups[0].get(key))
    }
    if type(optimizer) is not torch.optim.SGD or keys:
        found = ", ".join([type(optimizer).__name__, *(f"{key}={value:g}" for key, value in keys.items())])
        raise BadInput(
            f"optimizer should be sgd without momentum, weight decay and maximize with the schedule {name}, whose rate "
            f"is for steps down the gradient, found {found}"
        )
    if run.clip_norm is not None:
        raise BadInput(
            f"clip_norm should be null with the schedule {name}, whose rate is for the whole gradient, found "
            f"{run.clip_norm}; schedule.largest bounds the rate"
        )
    if not run.rates[0] > 0:
        raise BadInput(f"optimizer.lr should be a number > 0, where the schedule {name} starts, found {run.rates[0]}")


def prepare_probes(run: Experiment) -> None:
    """Can each probe, and what the schedule measures, measure this network, as far as a few samples tell?"""
    loss = few_samples(run)
    largest = -(-run.batches.samples(0) // run.ranks.count)  # the same for all ranks, so that they choose the same
    probes = {f"probe.{name}": probe for name, probe in run.probes.items()}
    if run.schedule.measures is not None:
        probes["schedule"] = run.schedule.measures
    for path, probe in probes.items():
        planned = sum(probe.cadence.due(s, run.batches.steps_per_epoch, run.steps) for s in range(run.steps + 1))
        try:
            probe.prepare(loss, largest, planned)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
