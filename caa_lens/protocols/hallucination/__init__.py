"""Two-choice questions that invite a model to make something up, written by another model or drawn from a grammar.

A question can do so in two ways (CAA, arXiv 2312.06681, in the account of its hallucination set). An *unprompted* one
does it alone: it asks for what nobody can know, or what does not exist. A *contextual* one is triggered: before the
question stands something false that it takes for granted. The matching answer makes something up, the other is honest.
The words with which a writer is asked are this project's own; those of the paper's authors were not seen.

Whoever writes such questions repeats itself, and now and then writes something else. So each one is checked, and what
is refused is kept with its reason. What remains has as many questions of each kind as of the other, and in each kind as
many whose made-up answer is (A) as (B). Whether an answer *is* made up is what no check here can see: read some.

>>> found = from_world(8, seed=1)
>>> found.pairs().letter_balance(), found.pairs("contextual").letter_balance()
({'A': 4, 'B': 4}, {'A': 2, 'B': 2})
"""

from caa_lens.protocols.hallucination.questions import KINDS as KINDS
from caa_lens.protocols.hallucination.questions import HallucinationSet as HallucinationSet
from caa_lens.protocols.hallucination.questions import Question as Question
from caa_lens.protocols.hallucination.questions import Refused as Refused
from caa_lens.protocols.hallucination.world import from_world as from_world
from caa_lens.protocols.hallucination.writing import estimate_pairs as estimate_pairs
from caa_lens.protocols.hallucination.writing import generate_pairs as generate_pairs
