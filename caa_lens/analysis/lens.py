"""The logit lens: what a direction, or a stream half way through the model, says in words.

A residual stream goes through the final norm and the unembedding to become logits. The logit lens sends something
else the same way: the stream after an earlier block, an attention layer's or an MLP's output alone, or a vector (CAA,
arXiv 2312.06681, section 3, on steered activations). The first two are streams, and the norm divides them by their own
length. A vector is not one: the norm's division depends on the stream that the vector is added to, and a bias belongs
to no direction. What is left of the norm for a direction is linear (centring where the norm centres, and its weights),
and that is the default here. What a lens says of an early layer is a hint, not what the model computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.analysis.tokens import text_tokens, token_ids
from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Recipe
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import check_layers
from caa_lens.prompts import PromptFormat, token_texts
from caa_lens.steering.steering import edits_of
from caa_lens.steering.streams import Text, formatted_texts, run_texts, steered_positions
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors

if TYPE_CHECKING:
    import pandas as pd

Norm = Literal["weight", "full", "none"]
Site = Literal["attn_out", "mlp_out", "resid_post"]
AT_ONCE = 8192
"""Tokens of the vocabulary whose directions are made float32 together: a copy of all can be larger than the model."""


def logit_lens(
    model: HookedModel, vectors: SteeringVector | SteeringVectors, k: int = 5, *, norm: Norm = "weight"
) -> pd.DataFrame:
    """The tokens that a vector speaks for, and those it speaks against, layer by layer.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One vector, or one a layer.
        k: So many tokens at either end.
        norm: What of the final norm is applied before the unembedding.
            ``"weight"``: its linear part, centring and weights; a logit is then what adding the vector to the last
            block's output adds to the token's, times the stream's scale there (its root mean square).
            ``"full"``: the whole norm, as if the vector were a stream: its length does not matter and the norm's bias
            is in it (the readout of a direction in Billa, arXiv 2604.15557).
            ``"none"``: the unembedding alone.

    Returns:
        One row for each `layer`, `end` (``top`` or ``bottom``) and `rank` (from 1, the most extreme first), with
        `token_id`, `token` and `logit`. The unembedding's bias is left out.

    Raises:
        ValueError: For an unknown norm, k out of range, or vectors that are not of this model's layers and d_model.
    """
    import pandas as pd

    adapter = adapt(model)
    every = _checked(adapter, vectors)
    d_vocab = int(adapter.unembedding.shape[1])
    if not 1 <= k <= d_vocab:
        raise ValueError(f"k is {k}: give 1 to {d_vocab}, the size of {adapter.name}'s vocabulary")
    logits = direction_logits(adapter, torch.stack([vector.values for vector in every]), norm)
    rows: list[tuple[Any, ...]] = []
    for vector, of_vector in zip(every, logits, strict=True):
        for end, largest in (("top", True), ("bottom", False)):
            values, ids = of_vector.topk(k, largest=largest)
            found = zip(ids.tolist(), token_texts(adapter, ids.tolist()), values.tolist(), strict=True)
            rows += [(vector.layer, end, rank, *of_token) for rank, of_token in enumerate(found, start=1)]
    return pd.DataFrame(rows, columns=["layer", "end", "rank", "token_id", "token", "logit"])


def unembedding_similarity(
    model: HookedModel,
    vectors: SteeringVector | SteeringVectors,
    tokens: Sequence[str | int] | None = None,
    k: int = 10,
) -> pd.DataFrame:
    """Cosine of a vector with the unembedding's direction of each token; neither is put through the final norm.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One vector, or one a layer.
        tokens: Texts of one token each (with their leading space), or ids; None for the k most and k least similar.
        k: How many at either end, where no tokens are given.

    Returns:
        `layer`, `token_id`, `token`, `cosine`, and `rank` (1 for the most similar of the whole vocabulary); the tokens
        in the order given, or from the most similar to the least. A zero vector's cosines are NaN.

    Raises:
        ValueError: For a text that is not one token, k out of range, or vectors that are not this model's.
    """
    import pandas as pd

    adapter = adapt(model)
    every = _checked(adapter, vectors)
    unembedding = adapter.unembedding
    d_vocab = int(unembedding.shape[1])
    asked = None if tokens is None else token_ids(adapter, tokens)
    if asked is None and not 1 <= 2 * k <= d_vocab:
        raise ValueError(f"k is {k}: give 1 to {d_vocab // 2}, half the size of {adapter.name}'s vocabulary")
    values = torch.stack([vector.values for vector in every])
    dots = _times_unembedding(adapter, values)
    lengths = torch.cat([part.float().norm(dim=0) for part in unembedding.split(AT_ONCE, dim=1)]).cpu()
    cosines = dots / (values.norm(dim=-1, keepdim=True) * lengths)
    rows: list[tuple[Any, ...]] = []
    for vector, of_vector in zip(every, cosines, strict=True):
        order = of_vector.sort(descending=True, stable=True).indices
        rank_of = torch.empty_like(order)
        rank_of[order] = torch.arange(1, d_vocab + 1)
        chosen = torch.cat([order[:k], order[-k:]]).tolist() if asked is None else asked
        found = zip(chosen, token_texts(adapter, chosen), strict=True)
        rows += [(vector.layer, token, text, float(of_vector[token]), int(rank_of[token])) for token, text in found]
    return pd.DataFrame(rows, columns=["layer", "token_id", "token", "cosine", "rank"])


def stream_lens(
    model: HookedModel,
    text: Text,
    *,
    steer: Recipe | None = None,
    sites: Sequence[Site] = ("attn_out", "mlp_out", "resid_post"),
    layers: Sequence[int] | None = None,
    positions: Sequence[str | int] = (-1,),
    tokens: Sequence[str | int] | None = None,
    k: int = 5,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> pd.DataFrame:
    """What the stream, and what attention and MLP add to it, say in words, layer by layer (CAA, section 3).

    Each is put through the model's final norm and unembedding as if it were the last block's output. That
    ``resid_post`` of the last layer gives the model's own logits is checked in every call.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        text: A text, or a tuple of a prompt and its answer.
        steer: What to steer with, from the prompt's last token on, that one included.
        sites: ``attn_out`` and ``mlp_out`` (what is added to the stream, after a norm where a block has one there),
            ``resid_post`` (the block's output, steered).
        layers: None for all.
        positions: Roles of the text (each one's last token) or positions counted from either end.
        tokens: Tokens to look at, by text or id; None for the k likeliest at each place.
        k: How many, where no tokens are given.
        prompt_format: See `format_prompt`.
        system: A system prompt.

    Returns:
        One row for each position, layer, site and token: `pos`, `token` (the text's at that position), `steered`,
        `layer`, `site`, `rank` (1 for the likeliest of the vocabulary), `predicted_id`, `predicted`, `logit` and `logp`
        (natural logarithm).

    Raises:
        ValueError: Before the model runs: for unknown sites, layers or positions, a text that is not one token, k out
            of range, or a recipe that does not fit the model. After it: where the last layer does not give the model's
            logits, so that its head does more than these two steps.
    """
    import pandas as pd

    adapter = adapt(model)
    unknown = [site for site in sites if site not in get_args(Site)]
    if unknown or not sites:
        raise ValueError(f"sites {brief(unknown)}: give one or more of {', '.join(get_args(Site))}")
    asked, d_vocab = check_layers(adapter, layers), int(adapter.unembedding.shape[1])
    if not 1 <= k <= d_vocab:
        raise ValueError(f"k is {k}: give 1 to {d_vocab}, the size of {adapter.name}'s vocabulary")
    wanted = None if tokens is None else token_ids(adapter, tokens)
    [laid_out] = formatted_texts(adapter, [text], prompt_format, system)
    places = list(dict.fromkeys(laid_out.position(position) for position in positions))
    if not places:
        raise ValueError(f"there are no positions: give roles such as {', '.join(sorted(laid_out.spans))}, or indices")
    by_name = {adapter.hook_name(layer, site): (layer, site) for layer in asked for site in sites}
    final = adapter.hook_name(adapter.n_layers - 1)
    kept: dict[str, Tensor] = {}

    def keep(index: int, name: str, stream: Tensor) -> None:
        kept[name] = stream[[*places, -1]].clone()

    own = run_texts(adapter, [laid_out], list(dict.fromkeys([*by_name, final])), keep, recipe=steer)
    _require_own_logits(adapter, kept[final][-1:], own)
    words, steered = text_tokens(adapter, laid_out.ids), steered_positions(adapter, laid_out, steer)
    rows: list[tuple[Any, ...]] = []
    for number, place in enumerate(places):
        for name, (layer, site) in by_name.items():
            [logits] = stream_logits(adapter, kept[name][number : number + 1])
            logp = logits.log_softmax(dim=-1)
            chosen = logits.topk(k).indices.tolist() if wanted is None else wanted
            for token, predicted in zip(chosen, token_texts(adapter, chosen), strict=True):
                rank = int((logits > logits[token]).sum()) + 1
                at = (place, words[place], steered[place], layer, site)
                rows.append((*at, rank, token, predicted, float(logits[token]), float(logp[token])))
    columns = ["pos", "token", "steered", "layer", "site", "rank", "predicted_id", "predicted", "logit", "logp"]
    return pd.DataFrame(rows, columns=columns)


def direction_logits(
    adapter: Adapter, directions: Float[Tensor, "direction d_model"], norm: Norm
) -> Float[Tensor, "direction d_vocab"]:
    """Directions through as much of the final norm as asked, and through the unembedding; float32, on the CPU."""
    if norm not in get_args(Norm):
        raise ValueError(f"norm {brief(norm)} is not known: give one of {', '.join(get_args(Norm))}")
    if norm == "weight":
        weight, centers = _linear_part(adapter)
        directions = (directions - directions.mean(dim=-1, keepdim=True) if centers else directions) * weight
    elif norm == "full":
        directions = _through_norm(adapter, directions)
    return _times_unembedding(adapter, directions)


def stream_logits(adapter: Adapter, streams: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """Residual streams through the model's own head, all at once; float32, on the CPU."""
    with torch.no_grad():
        return adapter.head(streams.to(adapter.unembedding).unsqueeze(1))[:, 0].float().cpu()


def _checked(adapter: Adapter, vectors: SteeringVector | SteeringVectors) -> list[SteeringVector]:
    every = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
    for vector in every:
        edits_of(adapter, vector)  # refuses another model's layers and width
    return every


def _times_unembedding(
    adapter: Adapter, directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "direction d_vocab"]:
    parts = adapter.unembedding.split(AT_ONCE, dim=1)
    return torch.cat([(directions.to(part.device) @ part.float()).cpu() for part in parts], dim=1)


def _through_norm(adapter: Adapter, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    with torch.no_grad():
        return adapter.final_norm(rows.to(adapter.unembedding).unsqueeze(1))[:, 0].float().cpu()


def _linear_part(adapter: Adapter) -> tuple[Float[Tensor, " d_model"], bool]:
    """The final norm's weights, and whether it centres: found by what it does, which is the same for every class.

    A norm divides by a length and may add a bias: half of what it makes of a vector less what it makes of its opposite
    is free of the bias. A constant vector is all that centring takes away.
    """
    constant = torch.full((adapter.d_model,), 100.0)  # large, so that the norm's epsilon does not show
    probe = constant.clone()
    probe[1::2] *= -1
    of_constant, of_probe = (
        (_through_norm(adapter, torch.stack([vector, -vector])) * torch.tensor([[0.5], [-0.5]])).sum(dim=0)
        for vector in (constant, probe)
    )
    centers = float(of_constant.abs().max()) < 1e-2 * float(of_probe.abs().max())
    centered = probe - probe.mean() if centers else probe
    return of_probe / (centered / centered.square().mean().sqrt()), centers


def _require_own_logits(adapter: Adapter, stream: Float[Tensor, "1 d_model"], own: Float[Tensor, "1 d_vocab"]) -> None:
    found = stream_logits(adapter, stream)
    off = float((found - own).abs().max())
    if off > 0.02 * float(own.abs().max()):
        raise ValueError(
            f"the last block's output of {adapter.name}, through its final norm and unembedding, is off its own logits "
            f"by up to {off:.3g}: its head does more than that (scaled logits, for example), and a lens would mislead"
        )
