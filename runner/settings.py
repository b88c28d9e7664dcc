"""The process-wide settings that a run's numbers depend on."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from omegaconf import DictConfig

from runner.allocator import kept_memory
from runner.curvature.precision import full_precision
from runner.updating import unmarked


@contextmanager
def settings(cfg: DictConfig) -> Iterator[None]:
    """The process-wide settings of a run, put back afterwards: exact fp32 products, determinism, threads, freed memory
    kept, and none of the contexts that a notebook may be in."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with kept_memory(), ExitStack() as contexts:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                contexts.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            contexts.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        contexts.enter_context(torch.enable_grad())
        contexts.enter_context(unmarked())
        if cfg.precision != "bf16":
            contexts.enter_context(full_precision())
        try:
            if cfg.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            if torch.are_deterministic_algorithms_enabled() != deterministic:  # to set it imports the compiler
                torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)
