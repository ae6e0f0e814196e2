"""What an activation addition does: topics, sentiment, loss, facts, each beside additions that mean nothing.

ActAdd (Turner et al., arXiv 2308.10248) adds the difference of two prompts to the first tokens of another. Any matrix
of that size changes what a model says, so nothing here is given without its controls: *random* additions, and
*nonsense* ones made from random tokens in the way of real ones, both with the norm of the addition at each position.
Every evaluation returns a frame with rows of the kinds ``unsteered``, ``vector``, ``random`` and ``nonsense``, and
`beside_controls` makes of any of them the effect, its interval, and the range of the controls.

    love = addition(model, "Love", "Hate", layer=6, coefficient=5)
    beside_controls(perplexity_ratio(model, love, about_love, about_tax), "ratio")
    told = continuations(model, love, ["I hate you because"], n_samples=100)
    beside_controls(topic_words(told, ["love", "friend"]), "hit")

Teacher-forced figures (`perplexity_ratio`, `knowledge_kept`, `word_odds`) are of text that is given; the others
(`topic_words`, `sentiment_shift`, `completion_loss`) are of what `continuations` wrote, once for all of them.
"""

from caa_lens.evaluation.actadd.controls import nonsense as nonsense
from caa_lens.evaluation.actadd.controls import random_like as random_like
from caa_lens.evaluation.actadd.controls import with_controls as with_controls
from caa_lens.evaluation.actadd.given import perplexity_ratio as perplexity_ratio
from caa_lens.evaluation.actadd.knowledge import knowledge_kept as knowledge_kept
from caa_lens.evaluation.actadd.knowledge import last_words as last_words
from caa_lens.evaluation.actadd.knowledge import load_facts as load_facts
from caa_lens.evaluation.actadd.knowledge import word_odds as word_odds
from caa_lens.evaluation.actadd.norms import norms_along as norms_along
from caa_lens.evaluation.actadd.summary import beside_controls as beside_controls
from caa_lens.evaluation.actadd.sweep import sweep_additions as sweep_additions
from caa_lens.evaluation.actadd.written import PAPER_SAMPLING as PAPER_SAMPLING
from caa_lens.evaluation.actadd.written import completion_loss as completion_loss
from caa_lens.evaluation.actadd.written import continuations as continuations
from caa_lens.evaluation.actadd.written import sentiment_shift as sentiment_shift
from caa_lens.evaluation.actadd.written import topic_words as topic_words
