"""Updates without the wrapping of torch's optimizers are the same updates, and nothing of torch stays changed."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from runner.updating import MARK, NOT_COMPILED, unmarked, update

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True},
    "Adam": {"lr": 0.1, "amsgrad": True},
    "AdamW": {"lr": 0.1, "fused": True},
    "RMSprop": {"lr": 0.1, "centered": True},
    "Adagrad": {},
    "Rprop": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_bits(name: str) -> None:
    found = []
    for step in (update, lambda optimizer: optimizer.step()):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = getattr(torch.optim, name)(model.parameters(), **OPTIMIZERS[name])
        for _ in range(4):
            model(torch.randn(7, 5)).square().mean().backward()
            step(optimizer)
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("where", ["before", "after", "everywhere", "instead"])
def test_hooks_are_called(where: str) -> None:
    called: list[Any] = []
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    handle = None
    if where == "before":
        optimizer.register_step_pre_hook(lambda *_: called.append(1))
    elif where == "after":
        optimizer.register_step_post_hook(lambda *_: called.append(1))
    elif where == "everywhere":
        handle = register_optimizer_step_post_hook(lambda *_: called.append(1))
    else:
        optimizer.step = lambda *_: called.append(1)  # type: ignore[method-assign,assignment]
    update(optimizer)
    if handle:
        handle.remove()
    assert called == [1]


def test_an_optimizer_of_ones_own_steps_by_itself() -> None:
    class Own(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            self.stepped = True

    optimizer = Own(nn.Linear(2, 2).parameters(), lr=0.1)
    update(optimizer)
    assert optimizer.stepped


def test_torch_is_left_as_it_was() -> None:
    methods = [inspect.unwrap(method) for method in NOT_COMPILED]
    before = [getattr(method, MARK, None) for method in methods]
    with unmarked():
        assert all(hasattr(method, MARK) for method in methods)
    assert [getattr(method, MARK, None) for method in methods] == before


def test_a_run_does_not_wait_for_the_compiler_s_import(tmp_path: Path) -> None:
    code = (
        f"import runner, sys; runner.run(['steps=2', 'device=cpu', 'hydra.run.dir={tmp_path}']); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
