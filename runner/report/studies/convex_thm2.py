"""Theorem 2 of the main paper in deep linear networks."""

from runner.report.study import Study
from runner.report.theorem2 import CLAIMS, PLOTS, remark

STUDY = Study(
    title="Theorem 2: how likely negative curvature is, in deep linear networks",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="Linear networks of 8 weight layers and one output, weights from N(0, 1/fan_in); "
    "logistic loss on one input of unit norm, at the start: the curvature g'Hg / g'g of many networks for each width n "
    "and input dimension d.",
    claims=CLAIMS,
    plots=PLOTS,
    remark=remark,
)
