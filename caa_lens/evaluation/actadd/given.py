"""How an addition changes the probability of text that is given: related to it, and not.

Two perplexities go by the same name in ActAdd (arXiv 2308.10248). Here the *steered* model scores text that people
wrote, and its perplexity is divided by the unsteered model's: an addition about weddings should make text about
weddings more probable, and leave the rest alone. The other, the unsteered model's loss on what the steered one wrote,
is `completion_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caa_lens.evaluation.actadd.controls import Additions, check_additions, named_way, with_controls
from caa_lens.evaluation.side_effects import side_effects
from caa_lens.models.adapters import HookedModel, adapt

if TYPE_CHECKING:
    import pandas as pd

    from caa_lens.interventions.interventions import Recipe


def perplexity_ratio(
    model: HookedModel,
    additions: Additions,
    related: Sequence[str],
    unrelated: Sequence[str],
    *,
    n_nulls: int = 20,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Perplexity of given texts under the steered model, divided by that under the unsteered one, text by text.

    Texts are run as they are (format ``plain``), with the addition at their front, and nothing is generated.
    Predictions made from the positions that it covers are masked out, of every way alike: what was added there stands
    in for other words than the text's. KL(steered || unsteered) of the same predictions comes with it.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        additions: One, or several at once; at the front.
        related: Texts on what the addition is about; each longer than it by two tokens or more.
        unrelated: Texts on other things.
        n_nulls: So many controls of each kind; see `with_controls`.
        seed: Of the controls.
        batch_size: Rows run at once, one for each text and way.
        progress: Show progress bars.

    Returns:
        One row for each way x text, with ``vector`` (the additions' name), ``kind`` (``vector``, ``unsteered``,
        ``random`` or ``nonsense``), ``draw`` (of a control, else -1), ``text_kind`` (``related`` or ``unrelated``),
        ``item`` (the text's place in its list), ``n_tokens`` (counted), ``nll_unsteered`` and ``nll_steered`` (mean
        negative log-likelihoods of these, in nats), ``ratio`` (of the perplexities: below 1 where the text became more
        probable) and ``kl`` (mean, in nats). `beside_controls` takes it with ``"ratio"`` or ``"kl"``.

    Raises:
        TypeError: If texts are one string, and as `with_controls`.
        ValueError: Before the model runs: for no texts of a kind, a text too short or too long, an addition elsewhere
            than at the front, and as `with_controls`.

    Source: ratio of perplexities on related and unrelated text, ActAdd (arXiv 2308.10248), with injected positions left
    out. There the ratio is that of all sentences of a topic; here each text has its own.
    """
    import numpy as np
    import pandas as pd

    parts = check_additions(adapt(model), additions, n_nulls)
    sets = {"related": related, "unrelated": unrelated}
    for kind, texts in sets.items():
        if isinstance(texts, str):
            raise TypeError(f"{kind} is one string: give a list, such as [{texts[:20]!r}]")
        if not len(texts):
            raise ValueError(f"there are no {kind} texts: give at least one of each kind")
    every = [*related, *unrelated]

    def measure(ways: dict[str, Recipe | None], stage: str) -> pd.DataFrame:
        return side_effects(model, ways, every, batch_size=batch_size, progress=stage if progress else False)

    # Its own check of texts and additions comes first, before controls are read from the model.
    found = measure({"0": None, "1": parts}, "steered")
    ways = with_controls(model, additions, n_nulls=n_nulls, seed=seed)
    controls = {str(place): way for place, way in enumerate(ways.values()) if place > 1}
    found = pd.concat([found, measure(dict(controls), "controls")], ignore_index=True)
    named = dict(zip(map(str, range(len(ways))), (named_way(parts, *way) for way in ways), strict=True))
    place = found["vector"]
    is_related = found["document"] < len(related)
    return pd.DataFrame(
        {
            **{column: [named[each][column] for each in place] for column in ("vector", "kind", "draw")},
            "text_kind": np.where(is_related, "related", "unrelated"),
            "item": np.where(is_related, found["document"], found["document"] - len(related)),
            "n_tokens": found["n_tokens"],
            "nll_unsteered": found["nll_unsteered"],
            "nll_steered": found["nll_steered"],
            "ratio": np.exp(found["nll_steered"] - found["nll_unsteered"]),
            "kl": found["kl_mean"],
        }
    )
