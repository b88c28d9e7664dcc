"""How all figures look, by light and by dark; colours that can be told apart by everyone."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

# Okabe and Ito, for settings without an order; what has an order takes `ordered`.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8c8c8c")
_SHARED: dict[str, Any] = {
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "runner",
}
_GROUND = {"light": "#ffffff", "dark": "#16181d"}
_INK = {"light": "#1c1e21", "dark": "#dcdfe4"}


@contextmanager
def theme(name: str) -> Iterator[None]:
    """`light` or `dark`."""
    ground, ink = _GROUND[name], _INK[name]
    inked = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), ink
    )
    settings: Any = {**_SHARED, **inked, "figure.facecolor": ground, "axes.facecolor": ground}
    with plt.rc_context(settings):
        yield


def ink() -> Any:
    """The colour of lines that belong to the axes."""
    return plt.rcParams["text.color"]


def ordered(count: int) -> list[Any]:
    """Colours for so many settings in an order (widths, depths), that stand out from the ground."""
    low, high = (0.35, 1.0) if ink() == _INK["dark"] else (0.15, 0.85)
    return list(plt.get_cmap("viridis")(np.linspace(low, high, count) if count > 1 else [0.5]))


def panels(
    count: int, columns: int = 3, width: float = 3.6, height: float = 3.0, **shared: Any
) -> tuple[Any, list[Any]]:
    """A figure of so many axes, `columns` in a row."""
    if not count:
        raise ValueError("the runs hold nothing to show")
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **shared)
    axes = list(grid.flatten())
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def image(figure: Any, kind: str) -> bytes:
    """The figure as a file's bytes, `png` or `svg`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
