"""An explorer for notebooks: a behaviour, a layer, a multiplier and a prompt, live.

`looking` is values in, values out, and `widget` puts sliders in front of it. Nothing imports this; it knows no measure
of its own and no file.
"""

from caa_lens.explorer.looking import look as look
from caa_lens.explorer.widget import Explorer as Explorer
from caa_lens.explorer.widget import explorer as explorer
