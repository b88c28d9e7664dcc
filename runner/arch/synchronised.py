"""Batch norm with the statistics of the whole batch, of which each of several ranks has a part."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import handle_torch_function, has_torch_function_unary

from runner.curvature.taylor.registry import rule_for
from runner.curvature.taylor.tensor import Taylor, tensor
from runner.ranks import add_up


def synchronise(model: nn.Module) -> None:
    """Make every batch norm of the model one over all ranks; its parameters, buffers and names stay."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SynchronisedBatchNorm  # in place, since the model may hold it under several names


class SynchronisedBatchNorm(_BatchNorm):
    """(N, C, …) to the same. In training y = (x - mean) / sqrt(var + eps) over the samples and positions of all ranks,
    made of operations that can be differentiated twice and expanded, where torch's SyncBatchNorm has a first derivative
    only. Before the ranks are joined the statistics are those of this process."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        own = x.new_full((1,), x.numel() / x.shape[1])
        sums = summed(torch.cat([x.sum(dims), own]))
        n, mean = sums[-1].detach(), sums[:-1] / sums[-1]
        d = x - mean.view(shape)
        var = summed((d * d).sum(dims)) / n
        self._remember(mean.detach(), var.detach() * n / (n - 1))
        y = d * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics on."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Of any dimension."""


class _Summed(torch.autograd.Function):
    """The sum over all ranks, given to each of them: its adjoint is the same map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return summed(grads[0])


def _sum(x: Tensor) -> Tensor:
    y = x.clone(memory_format=torch.contiguous_format)
    add_up(y)
    return y


def summed(x: Tensor) -> Tensor:
    """The sum over all ranks, that derivatives pass through to any order, and Taylor coefficients each by itself."""
    if has_torch_function_unary(x):
        return handle_torch_function(summed, (x,), x)
    if not dist.is_initialized():
        return x
    return _Summed.apply(x) if x.requires_grad and torch.is_grad_enabled() else _sum(x)


@rule_for(summed)
def _series(x: Taylor) -> Tensor:
    moving = [c for c in x.c if c is not None]
    sums = iter(summed(torch.stack(moving)))
    c0, c1, c2 = (None if c is None else next(sums) for c in x.c)
    assert c0 is not None
    return tensor(c0, c1, c2)
