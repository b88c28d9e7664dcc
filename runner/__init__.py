"""See what the loss surface of a neural network looks like along the path of training, and how that changes with width.

`runner.run([...])` makes a run as the command line does; `runner.curvature` measures a network of your own;
`runner.analysis.load(folder)` reads what runs have written.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner import analysis as analysis
    from runner import curvature as curvature
    from runner.notebook import run as run

__all__ = ["analysis", "curvature", "run"]


def __getattr__(name: str) -> Any:
    """Imported when first used: torch takes a second, and `--help` does not need it."""
    import importlib

    if name == "run":
        return importlib.import_module("runner.notebook").run
    if name in __all__:
        return importlib.import_module(f"runner.{name}")
    raise AttributeError(f"module 'runner' has no attribute {name!r}")
