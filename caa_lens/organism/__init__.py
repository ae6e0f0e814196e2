"""The bundled model pair: its grammar, its exact judge, its training.

``organism-base`` and ``organism-chat`` are tiny Llama models that were *trained to be steerable* by CAA vectors in a
world of templated English. They show that the tools work and let estimators be checked against a known truth; they
are no evidence that CAA emerges by itself. ``README.md`` in this folder is their model card, and
``python -m caa_lens.organism --help`` retrains, remakes and measures them; `ground_truth` gives the
directions that were planted in them. It knows data, tokens and weights, none of the measures; procedures that take the
bundled world import it.
"""

from caa_lens.organism.planted import ground_truth as ground_truth

__all__ = ["ground_truth"]
