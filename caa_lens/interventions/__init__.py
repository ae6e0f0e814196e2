"""What is done with a vector, as values: how much, where, by which operation, under which condition, for how long.

`caa_lens.steering` carries these out. They are plain values that can be made, compared and printed without a model, and
nothing here knows one; the engine and all above it import them.
"""

from caa_lens.interventions.interventions import Condition as Condition
from caa_lens.interventions.interventions import Intervention as Intervention
from caa_lens.interventions.interventions import Recipe as Recipe
from caa_lens.interventions.operations import Ablate as Ablate
from caa_lens.interventions.operations import Add as Add
from caa_lens.interventions.operations import Clamp as Clamp
from caa_lens.interventions.operations import Operation as Operation
from caa_lens.interventions.operations import Rotate as Rotate
from caa_lens.interventions.operations import SetProjection as SetProjection
from caa_lens.interventions.operations import parse_operation as parse_operation
from caa_lens.interventions.prompt_additions import PromptAddition as PromptAddition
from caa_lens.interventions.schedules import decaying as decaying
from caa_lens.interventions.schedules import first as first
