"""Vectors between two kinds of text, from documents that are not paired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tqdm.auto import tqdm

from caa_lens.engine.branching import check_context
from caa_lens.extraction.extraction import check_places
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import model_info
from caa_lens.prompts import FormattedPrompt, format_prompt
from caa_lens.steering.streams import run_texts
from caa_lens.vectors.provenance import Provenance
from caa_lens.vectors.vectors import SteeringVectors

Over = Literal["last", "every"]

KINDS = ("target", "other")


def skill_vectors(
    model: HookedModel,
    target: Sequence[str],
    other: Sequence[str],
    *,
    over: Over = "last",
    layers: Sequence[int] | None = None,
    site: str = "resid_post",
    max_tokens: int | None = None,
    name: str = "skill",
    batch_size: int | None = None,
    progress: bool | str = False,
) -> SteeringVectors:
    """Mean activation over target documents minus the mean over other documents, one vector a layer.

    Every document counts the same, however long it is. Documents are run as they are (format ``plain``, with BOS where
    the model has one), sums are kept in float64, and memory does not grow with their number.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        target: Documents of the skill.
        other: Documents of another kind; not paired with the first, and of any number.
        over: ``"last"`` reads a document's last token, as the paper does; ``"every"`` takes the mean over its tokens
            but the first, whose stream (BOS, or the token that takes its part) is far larger than any other.
        layers: None for all.
        site: Where in each block to read, and so where the vectors are used; see `extract_vectors`.
        max_tokens: Documents are cut to so many tokens, BOS included; None for none cut.
        name: Of the vectors.
        batch_size: Documents run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        Vectors whose provenance has the method ``broad skill``, and the number and hash of both sets; they point from
        the other kind to the target.

    Raises:
        TypeError: If documents are one string.
        ValueError: Before the model runs: for no documents, a document that is in both sets, one with fewer than two
            tokens or more than the model holds, another ``over``, or layers or a site that the model lacks.

    Source: van der Weij et al., arXiv 2403.05767, on broad skills.
    """
    adapter, asked = adapt(model), check_places(model, layers, site)
    check_over(over)
    sides = [documents_of(adapter, texts, kind, max_tokens) for texts, kind in zip((target, other), KINDS, strict=True)]
    if both := sorted(set(target) & set(other)):
        raise ValueError(f"target and other share {len(both)} documents, such as {both[0][:60]!r}: give two kinds")
    column = {adapter.hook_name(layer, site): place for place, layer in enumerate(asked)}
    means: list[torch.Tensor] = []
    shown = progress if isinstance(progress, str) else "reading"
    with tqdm(total=sum(map(len, sides)), desc=shown, unit="document", disable=not progress) as bar:
        for side in sides:
            total = torch.zeros(len(asked), adapter.d_model, dtype=torch.float64)

            def add(index: int, hook: str, stream: torch.Tensor, total: torch.Tensor = total) -> None:
                read = stream[-1] if over == "last" else stream[1:].float().mean(dim=0)
                total[column[hook]] += read.cpu().double()
                bar.update(int(column[hook] == 0))

            run_texts(adapter, side, [*column], add, batch_size=batch_size)
            means.append(total / len(side))
    info = model_info(model)
    sizes = " minus ".join(
        f"{len(texts)} {kind} documents ({_hash(texts)[:12]})"
        for texts, kind in zip((target, other), KINDS, strict=True)
    )
    made = Provenance.unknown(
        info.name,
        model_fingerprint=info.fingerprint,
        hook_point=f"hook_{site}",
        read_position="last token" if over == "last" else "every token but the first",
        prompt_format="plain",
        weight_processing=info.weight_processing,
        dtype=info.dtype,
        dataset=name,
        dataset_hash=_hash([_hash(target), _hash(other), str(max_tokens)]),
        dataset_origin=sizes + (f", cut to {max_tokens} tokens" if max_tokens else ""),
        method="broad skill",
    )
    return SteeringVectors((means[0] - means[1]).float(), asked, made, name)


def check_over(over: str) -> None:
    """Refuse another way of reading a document than `Over` has, with a ValueError."""
    if over not in get_args(Over):
        raise ValueError(f"over is {brief(over)}: give 'last', the last token of a document, or 'every'")


def documents_of(adapter: Adapter, texts: Sequence[str], kind: str, max_tokens: int | None) -> list[FormattedPrompt]:
    """Documents as the model sees them: format ``plain``, cut to so many tokens where asked.

    Raises:
        TypeError: If they are one string.
        ValueError: For no documents, one of fewer than two tokens or more than the model holds, or a limit below 2.
    """
    if isinstance(texts, str):
        raise TypeError(f"{kind} is one string: give a list of documents, such as [{texts[:20]!r}]")
    if not len(texts):
        raise ValueError(f"there are no {kind} documents: give at least one")
    if max_tokens is not None and max_tokens < 2:
        raise ValueError(f"max_tokens is {max_tokens}: it is at least 2, BOS and one token")
    found: list[FormattedPrompt] = []
    for index, text in enumerate(texts):
        whole = format_prompt(adapter, text, prompt_format="plain")
        if len(whole.ids) < 2:
            raise ValueError(
                f"{kind} document {index}, {brief(text)}, has 1 token: at least 2 are needed; leave it out"
            )
        cut = slice(None, max_tokens)
        spans = {"prompt": (0, len(whole.ids[cut])), "prompt_end": (len(whole.ids[cut]) - 1, len(whole.ids[cut]))}
        found.append(FormattedPrompt(whole.text, whole.ids[cut], whole.tokens[cut], spans))
    check_context(adapter, [len(text.ids) for text in found])
    return found


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
