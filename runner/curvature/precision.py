"""The arithmetic in which curvature is measured: what the dtype says, and nothing faster behind its back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def _switches() -> tuple[Any, ...]:
    backends = torch.backends
    cudnn: Any = backends.cudnn
    mkldnn: Any = backends.mkldnn
    return backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn


@contextmanager
def full_precision() -> Iterator[None]:
    """fp32 products in IEEE fp32: TF32 and bf16 shortcuts change gGg and gHrg, which may cancel, by 0.3 % and more."""
    switches = _switches()
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Outside autocast, without TF32, and with the one attention kernel that has second derivatives."""
    with ExitStack() as stack:
        stack.enter_context(full_precision())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
