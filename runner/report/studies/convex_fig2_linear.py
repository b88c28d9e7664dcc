"""Figure 2 of the main paper with linear networks."""

from dataclasses import replace

from runner.report.studies.convex_fig2 import STUDY as FIGURE_2

STUDY = replace(
    FIGURE_2,
    title="Figure 2 with linear networks",
    setting="As Figure 2, with linear networks and weights from N(0, 1/fan_in).",
)
