"""Looking inside: what vectors are, where classes separate, what a text's tokens have to do with a vector.

`directions` compares vectors with one another, `dimensions` finds the few huge coordinates that can decide such
comparisons, `activations` looks at the pairs that a vector is made from, `reading` at every token of a text, `lens` at
what a vector or a stream says in words, and `early` guesses the layer to steer before any sweep.

All take plain values and give DataFrames (`cosine` a tensor) that plot and print as they are. Procedures, studies and
the explorer import this; it knows of no sweep and of no figure.
"""

from caa_lens.analysis.activations import pca as pca
from caa_lens.analysis.activations import relative_norms as relative_norms
from caa_lens.analysis.activations import separation as separation
from caa_lens.analysis.dimensions import massive_dimensions as massive_dimensions
from caa_lens.analysis.dimensions import without_dimensions as without_dimensions
from caa_lens.analysis.directions import behavior_cosines as behavior_cosines
from caa_lens.analysis.directions import compare as compare
from caa_lens.analysis.directions import cosine as cosine
from caa_lens.analysis.directions import cosine_matrix as cosine_matrix
from caa_lens.analysis.directions import cross_layer as cross_layer
from caa_lens.analysis.directions import norms as norms
from caa_lens.analysis.directions import subspace_overlap as subspace_overlap
from caa_lens.analysis.early import early_layer as early_layer
from caa_lens.analysis.lens import logit_lens as logit_lens
from caa_lens.analysis.lens import stream_lens as stream_lens
from caa_lens.analysis.lens import unembedding_similarity as unembedding_similarity
from caa_lens.analysis.reading import project as project
