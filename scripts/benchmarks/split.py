"""What measuring costs, in units of one training step (forward + backward) of the same network on the same batch.

Times are medians over rounds in one process, the methods taking turns. Memory is the peak beyond what was held
before the call: of a process of its own on the CPU (VmHWM), of the allocator on cuda. Errors are those of gHg,
relative to |gGg| + |gHrg|, against fp64 by double backward. Methods that are not installed are left out (extra
[bench]).
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.common import medians, peak_memory
from runner.arch.mlp import MLP
from runner.arch.resnet import BottleneckResNet, CifarResNet
from runner.curvature import exact, forward, sweeping
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.difference import gradient_difference
from runner.curvature.vectors import Vector


class Problem(NamedTuple):
    model: nn.Module
    loss_fn: nn.Module
    inputs: Tensor
    targets: Tensor


def _images(model: Callable[[], nn.Module], batch: int) -> Problem:
    return Problem(model(), nn.CrossEntropyLoss(), torch.randn(batch, 3, 32, 32), torch.randint(0, 100, (batch,)))


def _mlp() -> Problem:
    inputs = nn.functional.normalize(torch.randn(1000, 400))
    return Problem(MLP((400,), 1, width=8), nn.MSELoss(), inputs, torch.randint(0, 2, (1000, 1)).float())


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(32, 4, num_layers=6, num_heads=4, hidden_dim=192, mlp_dim=768, num_classes=100)
    nn.init.normal_(net.heads.head.weight, std=0.02)  # with torchvision's zeros only the head would have curvature
    return net


NETWORKS: dict[str, Callable[[], Problem]] = {
    "mlp": _mlp,
    "resnet50_k1": lambda: _images(lambda: CifarResNet((3, 32, 32), 100, width=1), 100),
    "resnet50_k2": lambda: _images(lambda: CifarResNet((3, 32, 32), 100, width=2), 100),
    "resnet50_k4": lambda: _images(lambda: CifarResNet((3, 32, 32), 100, width=4), 100),
    "resnet_bottleneck50": lambda: _images(
        lambda: BottleneckResNet((3, 32, 32), 100, width=1, blocks=[3, 4, 6, 3]), 32
    ),
    "vit": lambda: _images(_vit, 64),
}
DEFAULT = [name for name in NETWORKS if name != "resnet50_k4"]


def build(name: str, device: torch.device) -> Problem:
    """The network with a start as in training (He for the ones of this package), the same in every process."""
    from runner.init import Independent

    torch.manual_seed(0)
    problem = NETWORKS[name]()
    if name != "vit":
        Independent("normal", gain=2**0.5)(problem.model, generator=torch.Generator().manual_seed(0), width=1)
    return Problem(*(part.to(device) for part in problem))


def training_step(problem: Problem) -> None:
    problem.model.zero_grad(set_to_none=True)
    problem.loss_fn(problem.model(problem.inputs), problem.targets).backward()


def _curvlinops(problem: Problem, g: Vector) -> Tensor:
    """H g and G g; batch norm without running statistics, whose counters its transforms cannot update."""
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    data = [(problem.inputs, problem.targets)]
    parameters, v = list(problem.model.parameters()), list(g.values())
    operators = (HessianLinearOperator, GGNLinearOperator)
    made = [one(problem.model, problem.loss_fn, parameters, data, check_deterministic=False) for one in operators]
    products = [operator @ v for operator in made]
    return sum((p * q).sum() for p, q in zip(products[0], v, strict=True))  # type: ignore[return-value]


def _pyhessian(problem: Problem, g: Vector) -> Tensor:
    """H g. It goes into evaluation mode; without running statistics batch norm is the same function there."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    cuda = problem.inputs.device.type == "cuda"
    made = hessian(problem.model, problem.loss_fn, data=(problem.inputs, problem.targets), cuda=cuda)
    product = hessian_vector_product(made.gradsH, made.params, list(g.values()))
    problem.model.train().zero_grad(set_to_none=True)
    return sum((p * q).sum() for p, q in zip(product, g.values(), strict=True))  # type: ignore[return-value]


def methods(problem: Problem) -> dict[str, Callable[[], Tensor | None]]:
    """Each as a call that measures once, g being known."""
    loss = BatchLoss(*problem)
    g = loss.gradient()
    few = BatchLoss(problem.model, problem.loss_fn, problem.inputs[:4], problem.targets[:4])
    chunk = sweeping.fitting_chunk(few, len(problem.inputs))  # as the probe does
    calls: dict[str, Callable[[], Tensor | None]] = {
        "training step": lambda: training_step(problem),
        "fd": lambda: gradient_difference(loss, g, 0.1, at_w=g).gHg,
        "hvp": lambda: exact.hessian_product(loss, g).gHg,
        "split": lambda: forward.split(loss, g, chunk=chunk).gHg,
        "split, compiled": lambda: forward.split(loss, g, chunk=chunk, compiled=True).gHg,
        "split, double backward": lambda: exact.split_by_double_backward(loss, g).gHg,
    }
    peers = {"curvlinops": ("curvlinops H, G", _curvlinops), "pyhessian": ("PyHessian H", _pyhessian)}
    plain = without_running_statistics(problem)
    for package, (name, call) in peers.items():
        try:
            __import__(package)
        except ImportError:
            continue
        calls[name] = partial(call, plain, g)
    return calls


def without_running_statistics(problem: Problem) -> Problem:
    """The same function in training mode, by the same parameters."""
    import copy

    memo = {id(p): p for p in problem.model.parameters()}
    model = copy.deepcopy(problem.model, memo)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return problem._replace(model=model)


def reference(problem: Problem) -> tuple[float, float]:
    """gHg in fp64 by double backward, and the scale |gGg| + |gHrg|."""
    g = BatchLoss(*problem).gradient()
    loss = BatchLoss(*problem, dtype=torch.float64)
    parts = exact.split_by_double_backward(loss, {name: entry.double() for name, entry in g.items()})
    return parts.gHg.item(), (parts.gGg.abs() + parts.gHrg.abs()).item()


def peak(network: str, method: str, device: torch.device) -> float:
    """MiB beyond what is held before the call."""
    problem = build(network, device)
    few = Problem(problem.model, problem.loss_fn, problem.inputs[:4], problem.targets[:4])

    def warm_up() -> None:
        methods(few)[method]()
        problem.model.zero_grad(set_to_none=True)

    return peak_memory(methods(problem)[method], warm_up, device)


def peaks(network: str, names: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Each in a process of its own."""
    found = {}
    for name in names:
        command = [sys.executable, sys.argv[0], "peak", network, name, "--device", str(options.device)]
        command += ["--threads", str(options.threads)]
        result = subprocess.run(command, capture_output=True, text=True)
        found[name] = float(result.stdout.split()[-1]) if result.returncode == 0 else float("nan")
    return found


def run(options: argparse.Namespace) -> None:
    rows = []
    for network in options.networks:
        problem = build(network, options.device)
        calls = {name: call for name, call in methods(problem).items() if name in (options.methods or [name])}
        for name in [name for name in calls if _fails(name, calls[name])]:
            del calls[name]
        expected, scale = (float("nan"), 1.0) if options.no_reference else reference(problem)
        errors = {name: abs(float(v) - expected) / scale for name, call in calls.items() if (v := call()) is not None}
        seconds_of = medians(calls, options.rounds, options.device)
        memory = peaks(network, list(calls), options) if not options.no_memory else {}
        for name, seconds in seconds_of.items():
            row = {
                "network": network,
                "method": name,
                "seconds": seconds,
                "steps": seconds / seconds_of["training step"],
            }
            mib = memory.get(name, float("nan"))
            share = mib / memory["training step"] if memory else float("nan")
            rows.append({**row, "peak_MiB": mib, "memory_steps": share, "relative_error": errors.get(name)})
        show(pd.DataFrame(rows[-len(seconds_of) :]), f"{network}, batch {len(problem.inputs)}")
        options.out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(options.out / "split.csv", index=False)


def _fails(name: str, call: Callable[[], Tensor | None]) -> bool:
    try:
        call()
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
        return True
    return False


def show(frame: pd.DataFrame, title: str) -> None:
    table = Table(title=title)
    for column, kind in (("method", "left"), ("time / step", "right"), ("memory / step", "right"), ("error", "right")):
        table.add_column(column, justify=kind)  # type: ignore[arg-type]
    for row in frame.itertuples():
        error = "" if pd.isna(row.relative_error) else f"{row.relative_error:.1e}"
        table.add_row(str(row.method), f"{row.steps:.2f}", f"{row.memory_steps:.2f}", error)
    Console().print(table)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=DEFAULT)
    parser.add_argument("--methods", nargs="+", help="default: all; `training step` has to be among them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-reference", action="store_true", help="leave out fp64, which takes the longest")
