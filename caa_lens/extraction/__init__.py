"""From contrast pairs to activations, and from activations to vectors: the mean difference, other estimators, nulls.

`extract_vectors` is CAA's difference in means, read at the answer's letter; `estimators` make other directions of the
same activations, and `nulls` vectors that mean nothing but have the same norm. Steering, evaluation, analysis and
procedures import this; it does not know that anything is ever steered.
"""

from caa_lens.extraction.estimators import ESTIMATORS as ESTIMATORS
from caa_lens.extraction.estimators import estimate as estimate
from caa_lens.extraction.extraction import ContrastActivations as ContrastActivations
from caa_lens.extraction.extraction import extract_activations as extract_activations
from caa_lens.extraction.extraction import extract_vectors as extract_vectors
from caa_lens.extraction.nulls import null_vectors as null_vectors
