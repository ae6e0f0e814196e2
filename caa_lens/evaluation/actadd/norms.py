"""How long an addition is at each position, beside the stream that it is added to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from caa_lens.engine.block_inputs import block_inputs
from caa_lens.engine.branching import check_context
from caa_lens.evaluation.actadd.controls import check_additions
from caa_lens.interventions.prompt_additions import PromptAddition
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.prompts import PromptFormat, format_prompt

if TYPE_CHECKING:
    import pandas as pd


def norms_along(
    model: HookedModel,
    addition: PromptAddition,
    prompts: Sequence[str],
    *,
    prompt_format: PromptFormat | None = "plain",
    system: str | None = None,
) -> pd.DataFrame:
    """The norm of what is added at each position, and that of the unsteered stream of each prompt there.

    A coefficient means little by itself: an addition much longer than the stream takes its place, one much shorter is
    not felt. Both are at the input of the addition's layer, where it is made.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        addition: With its coefficient.
        prompts: What it would be added to.
        prompt_format: See `format_prompt`; None chooses by the tokenizer.
        system: A system prompt.

    Returns:
        One row for each prompt x position of the addition, with ``item`` (the prompt's place in the list), ``position``
        (in the addition), ``made_from`` (the tokens that it was made from there, as ``Love - Hate``), ``token`` (of the
        prompt), ``norm``, ``stream_norm`` and ``relative`` (the one over the other).

    Raises:
        TypeError: If ``prompts`` is one string, or for something else than an addition.
        ValueError: Before the model runs: for no prompts, one shorter than the addition or too long for the model, and
            where the addition does not fit the model.

    Source: norms along positions, ActAdd (arXiv 2308.10248, appendix). `caa_lens.analysis.relative_norms` is the same
    of CAA's vectors.
    """
    import pandas as pd

    adapter = adapt(model)
    check_additions(adapter, addition, n_nulls=None)
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    if not len(prompts):
        raise ValueError("there are no prompts: give at least one")
    texts = [format_prompt(adapter, prompt, prompt_format=prompt_format, system=system) for prompt in prompts]
    starts = [addition.first_position(len(text.ids), f"prompt {place}") for place, text in enumerate(texts)]
    check_context(adapter, [len(text.ids) for text in texts])
    streams = block_inputs(adapter, addition.layer, [text.ids for text in texts])
    norms = addition.norms().tolist()
    rows: list[dict[str, Any]] = []
    for place, (text, start, stream) in enumerate(zip(texts, starts, streams, strict=True)):
        own = stream.double().norm(dim=1).tolist()
        for position, norm in enumerate(norms):
            rows.append(
                {
                    "item": place,
                    "position": position,
                    "made_from": " - ".join(side[position].strip() or "_" for side in addition.tokens),
                    "token": text.tokens[start + position],
                    "norm": norm,
                    "stream_norm": own[start + position],
                    "relative": norm / own[start + position],
                }
            )
    return pd.DataFrame(rows)
