"""Turning sweeps into statements: each metric is one function of a tidy frame, of activations or of texts.

Procedures and studies import this; it knows no procedure, makes no vector and chooses nothing but a layer.
"""

from caa_lens.evaluation import actadd as actadd
from caa_lens.evaluation import capabilities as capabilities
from caa_lens.evaluation import choices as choices
from caa_lens.evaluation import entanglement as entanglement
from caa_lens.evaluation import fluency as fluency
from caa_lens.evaluation import harness as harness
from caa_lens.evaluation import items as items
from caa_lens.evaluation import reliability as reliability
from caa_lens.evaluation import side_effects as side_effects
from caa_lens.evaluation import statistics as statistics
