"""Whole procedures, each a model and data in, a table out.

Is a vector real (`assessment`), which layer and how much (`selection`), does it work elsewhere (`transfer`), what
prompting and finetuning do instead (`baselines`), several at once (`composition`), and further ones. Studies and
commands import them; they are built of extraction, sweeps and evaluation, and know of no folder, no figure and no
option.
"""

from caa_lens.protocols import assessment as assessment
from caa_lens.protocols import baselines as baselines
from caa_lens.protocols import broad_skills as broad_skills
from caa_lens.protocols import composition as composition
from caa_lens.protocols import hallucination as hallucination
from caa_lens.protocols import red_teaming as red_teaming
from caa_lens.protocols import selection as selection
from caa_lens.protocols import style as style
from caa_lens.protocols import transfer as transfer
from caa_lens.protocols.assessment import assess as assess
