"""Claim (c) of Figure 2 of the main paper, over many starts."""

from runner.report.studies.convex_fig2 import STUDY as FIGURE_2
from runner.report.study import Study

STUDY = Study(
    title="Figure 2 at its start, over many starts",
    paper=FIGURE_2.paper,
    setting="The networks of Figure 2 before their first step, each width drawn many times.",
    claims=FIGURE_2.claims[2:],
    plots=FIGURE_2.plots[1:],
)
