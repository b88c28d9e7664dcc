"""Second-order Taylor mode: a network's outputs along w + t v, expanded in one forward sweep.

The exact split of g'Hg needs no Hessian-vector product: with f(w + t g) = f0 + t f1 + t^2/2 f2 it is
g'Gg = f1'[d2L/dF2]f1 and g'H_r g = <dL/dF, f2>.
"""

from runner.curvature.taylor.loss import split_terms
from runner.curvature.taylor.sweep import expand
from runner.curvature.taylor.tensor import UnsupportedOperation

__all__ = ["UnsupportedOperation", "expand", "split_terms"]
