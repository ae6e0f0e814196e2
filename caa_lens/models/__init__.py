"""Loading models, and the only place that knows that there are two model classes.

An `Adapter` answers, for a `TransformerBridge` and a `HookedTransformer` alike, whatever the rest asks of a model:
blocks, hook points, KV caches, token ids. Sites name where in a block a vector is read or written. Everything above may
import this; it knows of no data, no vector and no prompt.
"""

from caa_lens.models.adapters import HookedModel as HookedModel
from caa_lens.models.adapters import adapt as adapt
from caa_lens.models.loading import ModelInfo as ModelInfo
from caa_lens.models.loading import bundled_models as bundled_models
from caa_lens.models.loading import check_layers as check_layers
from caa_lens.models.loading import load_model as load_model
from caa_lens.models.loading import model_info as model_info
from caa_lens.models.sites import SITES as SITES
from caa_lens.models.sites import Site as Site
