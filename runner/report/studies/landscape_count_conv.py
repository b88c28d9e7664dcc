"""Cooper's theorem on a convolutional network."""

from dataclasses import replace

from runner.report.studies import landscape_count

STUDY = replace(
    landscape_count.STUDY,
    title="Theorem: the Hessian at a minimum without loss, of a convolutional network",
    setting="A residual network of 3x3 convolutions with biases (eight weight layers, no normalisation) and smooth "
    "activations, one output, on fewer random images than it has weights, squared loss, Levenberg-Marquardt, float64; "
    f"the dense Hessian at the end. Minima with a loss of at most {landscape_count.REACHED:g} are judged.",
    claims=tuple(claim for claim in landscape_count.STUDY.claims if claim.name != "several outputs"),
)
