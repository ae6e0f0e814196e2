"""Steering vectors as frozen values: the numbers, how they were made, and their file.

Everything above may import this. It knows of no model: a vector has a layer and a site, and what it does there is said
in `caa_lens.interventions`.
"""

from caa_lens.vectors.provenance import Provenance as Provenance
from caa_lens.vectors.vectors import SteeringVector as SteeringVector
from caa_lens.vectors.vectors import SteeringVectors as SteeringVectors
from caa_lens.vectors.vectors import as_vectors as as_vectors
from caa_lens.vectors.vectors import random_like as random_like
