"""Open answers and who rates them: an endpoint, a local model, people; with the chat client that asks an endpoint.

`answers` lets a steered model answer questions, `scores` has the answers rated blindly, `summary` says what the scores
mean. Procedures that need open answers import this; it knows of no A/B item and no sweep.
"""

from caa_lens.judging import answers as answers
from caa_lens.judging import chat as chat
from caa_lens.judging import conditioning as conditioning
from caa_lens.judging import endpoint as endpoint
from caa_lens.judging import human as human
from caa_lens.judging import local as local
from caa_lens.judging import rubrics as rubrics
from caa_lens.judging import scores as scores
from caa_lens.judging import summary as summary
