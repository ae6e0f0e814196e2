"""The only things that change what a model says: `steer`, a context manager, and `generate`.

Beside them stand the positions that are steered, the conditions under which they are, and Activation Addition, which
adds the difference of two prompts at the front of a third. What measures steering imports this; it knows of no dataset
and no measure.
"""

from caa_lens.steering import activation_addition as activation_addition
from caa_lens.steering import conditions as conditions
from caa_lens.steering.activation_addition import addition as addition
from caa_lens.steering.positions import Positions as Positions
from caa_lens.steering.steering import generate as generate
from caa_lens.steering.steering import steer as steer
