"""Many behaviours at once: vectors added together, and what each does to the others.

Vectors for several behaviours can be put into one (`combined`: a sum, a mean or a weighted sum at one layer), or be
added side by side, each at a layer of its own (`simultaneous`); van der Weij et al. (arXiv 2403.05767) report that the
first mostly fails and the second is promising, with smaller effects than each vector has alone. So nothing here is said
of a combination without what its parts do alone: `sweep_together` runs each behaviour's items under each vector alone
and under all of them, `interference` compares the two, and random vectors in the place of the others say what any
disturbance of that size would have done. `search_coefficients` and `search_layers` choose on dev items and report on
others, and refuse what drives the answers out of the choices.
"""

from caa_lens.protocols.composition.asking import ask as ask
from caa_lens.protocols.composition.asking import compared as compared
from caa_lens.protocols.composition.interference import effects as effects
from caa_lens.protocols.composition.interference import interference as interference
from caa_lens.protocols.composition.interference import sweep_together as sweep_together
from caa_lens.protocols.composition.recipes import combined as combined
from caa_lens.protocols.composition.recipes import simultaneous as simultaneous
from caa_lens.protocols.composition.search import COEFFICIENTS as COEFFICIENTS
from caa_lens.protocols.composition.search import Found as Found
from caa_lens.protocols.composition.search import n_assignments as n_assignments
from caa_lens.protocols.composition.search import search_coefficients as search_coefficients
from caa_lens.protocols.composition.search import search_layers as search_layers
