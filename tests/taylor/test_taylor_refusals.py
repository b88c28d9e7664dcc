"""What the sweep has no rule for is named, and refused before anything is measured."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from taylor_oracle import Op, random_direction, sweep
from torch import Tensor, nn

from runner.curvature.taylor import UnsupportedOperation


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


_SCRIPTED = torch.jit.script(nn.Linear(3, 3).double()) if hasattr(torch.jit, "script") else None


def _hold(x: Tensor) -> Tensor:
    y = x * 2
    view = y[0]
    y.relu_()
    return view + y


def _into_plain(x: Tensor) -> Tensor:
    out = torch.zeros(3, 3, dtype=x.dtype)
    out[0] = x[0]
    return out


def _through(view: Any) -> Any:
    def write(x: Tensor) -> Tensor:
        y = x * 2
        view(y).mul_(2)
        return y.tanh()

    return write


def _rounded(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return x.mm(x)


def _detached(x: Tensor) -> Tensor:
    y = x * 2
    kept = y.detach()
    y.mul_(2)
    return y + kept


UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "no rule": (lambda x: torch.linalg.inv(x), "linalg"),
    "fft": (lambda x: torch.fft.fft(x).real, "fft"),
    "floor_divide": (lambda x: x // 2, "floordiv"),
    "numpy": (lambda x: torch.from_numpy(x.numpy()), "numpy"),
    "custom function": (Cut.apply, "Cut"),
    "script": (lambda x: _SCRIPTED(x), ""),
    "a view is alive": (_hold, "view"),
    "into a plain tensor": (_into_plain, "plain tensor"),
    "written after detach": (_detached, "view"),
    "bits": (lambda x: x.view(torch.int64), "bits"),
    "clamp bounds": (lambda x: x.clamp(min=x[0]), "bounds"),
    "grid": (lambda x: F.grid_sample(torch.ones(1, 1, 3, 3).double(), x[None, :, None, :2].expand(1, 3, 2, 2)), "grid"),
    "median": (lambda x: x.median(), "median"),
    "as_strided": (lambda x: x.as_strided((2,), (1,)), "as_strided"),
    "in place shape": (lambda x: (x * 2).unsqueeze_(0), "shape"),
    "bag max": (lambda x: F.embedding_bag(torch.tensor([[0, 1]]), x, mode="max"), "bag"),
    "scaled by frequency": (
        lambda x: F.embedding(torch.tensor([0, 1]), x, scale_grad_by_freq=True),
        "scale_grad_by_freq",
    ),
    "backward": (lambda x: x.sum().backward(), "backward"),
    "unknown arguments": (lambda x: torch.add(x, x, out=torch.empty(3, 3).double()), "arguments"),
    "scatter reduce": (lambda x: x.scatter(0, torch.zeros(1, 3, dtype=torch.long), x[:1], reduce="add"), "scatter"),
    "complex": (lambda x: x.to(torch.complex128).abs(), "complex"),
    "complex factor": (lambda x: torch.exp(1j * x)[:, :].real, "complex"),
    "autocast": (_rounded, "autocast"),
    "einsum is a view": (_through(lambda y: torch.einsum("ij->ji", y)), "view"),
    "sum_to_size is a view": (_through(lambda y: y.sum_to_size(3, 3)), "view"),
    "broadcast is a view": (_through(lambda y: torch.broadcast_tensors(y, torch.ones(3, 3))[0]), "view"),
    "calls itself": (lambda x: torch.meshgrid(x[0], x[1], indexing="ij"), "meshgrid"),
    "into the parameter": (lambda x: x, ""),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_operations_are_named(name: str) -> None:
    function, word = UNSUPPORTED[name]
    model = nn.Sequential(nn.Identity(), Op(function, [(3, 3)]))
    if name == "into the parameter":
        model[1] = Writes()
    with pytest.raises(UnsupportedOperation) as caught:
        sweep(model, random_direction(model))
    message = str(caught.value)
    assert word in message
    assert "'1'" in message or name == "into the parameter"
    assert "probe=hvp" in message
    assert "double_backward" in message


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 2))

    def forward(self, _: Any) -> Tensor:
        self.w.data.mul_(0.5)
        return self.w * self.w


def test_compiled_models_and_unknown_names_are_refused() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(UnsupportedOperation, match="compiled"):
        sweep(torch.compile(model), random_direction(model), torch.ones(1, 3))
    with pytest.raises(ValueError, match="nobody"):
        sweep(model, {"nobody": torch.ones(1)}, torch.ones(1, 3))
