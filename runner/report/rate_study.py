"""The study of a curvature-driven rate on one data set: the claims are judged alike on all."""

from runner.report.rates import CLAIMS, LATE, remark
from runner.report.rates_plots import PLOTS
from runner.report.study import Study


def rate_study(title: str, setting: str) -> Study:
    """Of the data set and the network in `setting`."""
    return Study(
        title=title,
        paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
        setting=f"{setting} Plain SGD. All are compared at the cost of the planned runs, a measurement counting as 5/3 "
        f"training steps, before the step that it is of; the loss is the arithmetic mean over the last {1 - LATE:.0%} "
        "of that cost.",
        claims=CLAIMS,
        plots=PLOTS,
        remark=remark,
    )
