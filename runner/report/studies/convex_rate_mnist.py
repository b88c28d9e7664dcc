"""A curvature-driven rate on MNIST, minibatches."""

from runner.report.rate_study import rate_study

STUDY = rate_study(
    "Curvature-driven learning rate: MNIST",
    "Two hidden ReLU layers, cross-entropy, batches of 100, a class-balanced subset of MNIST at scale=small.",
)
