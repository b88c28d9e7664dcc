"""A curvature-driven rate on the main paper's Gaussian inputs, full batch."""

from runner.report.rate_study import rate_study

STUDY = rate_study(
    "Curvature-driven learning rate: Gaussian inputs, full batch",
    "The network of Figure 2 (8 weight layers, ReLU, squared loss, full batch).",
)
