"""Cooper's theorem on a recurrent network."""

from dataclasses import replace

from runner.report.studies import landscape_count

STUDY = replace(
    landscape_count.STUDY,
    title="Theorem: the Hessian at a minimum without loss, of a recurrent network",
    setting="A recurrent network (Elman) with biases and smooth activations, one output after the last of four steps, "
    "on fewer random sequences than it has weights, squared loss, Levenberg-Marquardt, float64; the dense Hessian at "
    f"the end. Minima with a loss of at most {landscape_count.REACHED:g} are judged.",
    claims=tuple(claim for claim in landscape_count.STUDY.claims if claim.name != "several outputs"),
)
