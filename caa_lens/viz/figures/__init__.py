"""The figures of a CAA study, each from one frame.

Every function takes a tidy frame that some other module made and returns a `plotly.graph_objects.Figure`; the numbers
in the figure are the frame's, unrounded, so that it can be checked and read back, and all of them are in the text at
the pointer. Effects are shown with what could explain them away: the interval, the letter-balanced value, the range of
null vectors. A frame that lacks columns is refused with their names and with what returns such a frame.

=====================  ===============================================================================================
Does it steer?         `sweep_heatmap`, `dose_response`, `scores`, `baselines`, `entanglement`, `transfer`, `scaling`
Is it real?            `item_slopes`, `letter_balance`, `null_distribution`
What does it cost?     `side_effects`, `tradeoff`, `alignment_tax`
And among others?      `interference`
Of prompts (ActAdd)?   `added_effects`, `added_norms`
What does it look like `pca`, `separation`, `cosine_heatmap`, `cross_layer`, `base_versus_chat`, `norms`
inside?
=====================  ===============================================================================================
"""

from caa_lens.viz.figures.activations import pca as pca
from caa_lens.viz.figures.activations import separation as separation
from caa_lens.viz.figures.additions import added_effects as added_effects
from caa_lens.viz.figures.additions import added_norms as added_norms
from caa_lens.viz.figures.answers import scores as scores
from caa_lens.viz.figures.composing import alignment_tax as alignment_tax
from caa_lens.viz.figures.composing import interference as interference
from caa_lens.viz.figures.damage import side_effects as side_effects
from caa_lens.viz.figures.damage import tradeoff as tradeoff
from caa_lens.viz.figures.directions import base_versus_chat as base_versus_chat
from caa_lens.viz.figures.directions import cosine_heatmap as cosine_heatmap
from caa_lens.viz.figures.directions import cross_layer as cross_layer
from caa_lens.viz.figures.directions import norms as norms
from caa_lens.viz.figures.doubts import item_slopes as item_slopes
from caa_lens.viz.figures.doubts import letter_balance as letter_balance
from caa_lens.viz.figures.doubts import null_distribution as null_distribution
from caa_lens.viz.figures.effects import baselines as baselines
from caa_lens.viz.figures.effects import dose_response as dose_response
from caa_lens.viz.figures.effects import entanglement as entanglement
from caa_lens.viz.figures.effects import sweep_heatmap as sweep_heatmap
from caa_lens.viz.figures.scaling import scaling as scaling
from caa_lens.viz.figures.transfers import transfer as transfer
