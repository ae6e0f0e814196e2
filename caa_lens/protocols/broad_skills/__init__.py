"""Broad skills: vectors between two kinds of text, and what taking a skill away costs the rest.

A skill such as coding is in no answer of two, but in how all of a text goes on. So the vector is the mean block output
over documents of one kind, the *target*, minus that over documents of another; the two sets are not paired, and need
not be equally large. It is added at every position, and what is measured is the share of next tokens that the model
gets right, on target text and on the other: what a negative coefficient takes from the other text while it takes the
skill from the target is the *alignment tax* (van der Weij et al., arXiv 2403.05767, on broad skills).

Large coefficients break any text. The control is the same vector with its dimensions permuted, which has its norm and
its few huge coordinates in other places; a vector that costs the target no more than that has nothing to do with it.
Those huge coordinates can be all that there is: of the paper's code vector at layer 5 of Llama-2-7b, two dimensions
hold 93 % of the squared norm. `caa_lens.analysis.massive_dimensions` shows the shares, and `without_dimensions` leaves
them out.

    vectors = skill_vectors(model, target, other)
    curve = skill_curve(model, vectors[5], more_of_target, more_of_other, coefficients=(0, -1, -2, -5))
    alignment_tax(curve)
"""

from caa_lens.protocols.broad_skills.costs import alignment_tax as alignment_tax
from caa_lens.protocols.broad_skills.costs import summarize_skill as summarize_skill
from caa_lens.protocols.broad_skills.curve import COEFFICIENTS as COEFFICIENTS
from caa_lens.protocols.broad_skills.curve import skill_curve as skill_curve
from caa_lens.protocols.broad_skills.making import skill_vectors as skill_vectors
