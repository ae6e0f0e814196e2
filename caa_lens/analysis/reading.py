"""Which tokens of a text have to do with a vector.

The CAA paper colours the tokens of texts by how much they have of a behaviour's vector (arXiv 2312.06681, section 3).
The paper calls that a dot product, its code computes the cosine; the two differ where a token's stream is long, as the
first one's often is, so both are here. With a recipe to steer with, the stream is read as it is while steered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from caa_lens.analysis.tokens import text_tokens
from caa_lens.interventions.interventions import Recipe
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.models.loading import check_layers
from caa_lens.prompts import FormattedPrompt, PromptFormat
from caa_lens.steering.steering import edits_of
from caa_lens.steering.streams import Text, formatted_texts, run_texts, steered_positions
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("answer_letter", "bos", "prompt_end", "answer_end", "system", "question", "answer")
"""Roles that a position is named after, the most telling first."""


def project(
    model: HookedModel,
    texts: str | Sequence[Text],
    vectors: SteeringVector | SteeringVectors,
    *,
    steer: Recipe | None = None,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """How much of a vector every token of a text has in its residual stream (CAA, section 3).

    Args:
        model: A TransformerBridge or a HookedTransformer.
        texts: One text or several; a tuple of two is a prompt with its answer. ``prompt_format="plain"`` takes a text
            as it is, without a template.
        vectors: One vector, read at its layer, or one a layer.
        steer: What to steer with while reading, from each prompt's last token on, that one included. All of a text is
            steered where the text is the answer to an empty prompt: ``[("", text)]`` in the plain format.
        prompt_format: See `format_prompt`.
        system: A system prompt for all of them.
        batch_size: Texts run at once; None chooses by their length.

    Returns:
        One row for each text, layer and position, in that order: `text` (index), `pos`, `token_id`, `token` (readable;
        a character spread over several tokens stands at the last of them), `role` (``bos``, ``system``, ``question``,
        ``prompt_end``, ``answer_letter``, ``answer_end`` or ``answer``; ``""`` for none of these), `layer`, `vector`
        (its name), `read` (where CAA reads: the answer's letter, or the end of an answer that is none), `steered`
        (whether the recipe adds something at this position), `cosine` (-1 to 1), `projection` (dot product with the
        unit vector, in the stream's units) and `dot` (with the vector itself).

    Raises:
        ValueError: Before the model runs: for no texts, vectors of other layers or another d_model than the model's, a
            zero vector, a recipe that does not fit the model, or a text longer than its context.
        TypeError: For something that is neither a text nor a prompt with its answer.
    """
    import pandas as pd

    adapter = adapt(model)
    every = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
    check_layers(adapter, [vector.layer for vector in every])
    for vector in every:
        edits_of(adapter, vector)  # refuses a vector of another width
        vector.unit()  # and this one without a direction
    laid_out = formatted_texts(adapter, texts, prompt_format, system)
    by_name = {adapter.hook_name(vector.layer, vector.site): vector for vector in every}
    along: dict[tuple[int, int], dict[str, Tensor]] = {}

    def measure(index: int, name: str, stream: Tensor) -> None:
        vector = by_name[name]
        projection = vector.project(stream).cpu()
        along[index, vector.layer] = {
            "cosine": vector.cosine(stream).cpu(),
            "projection": projection,
            "dot": (projection.double() * vector.norm()).float(),
        }

    run_texts(adapter, laid_out, list(by_name), measure, recipe=steer, batch_size=batch_size)
    frames: list[pd.DataFrame] = []
    for index, text in enumerate(laid_out):
        place: dict[str, Any] = {
            "document": index,
            "pos": range(len(text.ids)),
            "token_id": list(text.ids),
            "token": text_tokens(adapter, text.ids),
            "role": _roles(text),
        }
        marks = {"read": _read(text), "steered": steered_positions(adapter, text, steer)}
        for vector in every:
            values = {name: column.tolist() for name, column in along[index, vector.layer].items()}
            frames.append(pd.DataFrame({**place, "layer": vector.layer, "vector": vector.name, **marks, **values}))
    return pd.concat(frames, ignore_index=True)


def _roles(text: FormattedPrompt) -> list[str]:
    found = [""] * len(text.ids)
    for role in reversed(ROLES):
        first, after = text.spans.get(role, (0, 0))
        found[first:after] = [role] * (after - first)
    return found


def _read(text: FormattedPrompt) -> list[bool]:
    role = next((role for role in ("answer_letter", "answer_end") if role in text.spans), None)
    at = text.position(role) if role else -1
    return [position == at for position in range(len(text.ids))]
