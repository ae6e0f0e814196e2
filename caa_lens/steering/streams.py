"""Running texts and looking at every position of them, steered where asked.

Sweeps and extraction look at one position a branch; here a whole text is of interest. Texts of about the same length
are run together, padded on the left, and what passes each hook point is handed over text by text without its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.engine.memory import by_length, prompts_at_once
from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Recipe
from caa_lens.models.adapters import Adapter, left_padded
from caa_lens.prompts import FormattedPrompt, PromptFormat, format_prompt
from caa_lens.steering.steering import edits_of, steer

Text = str | tuple[str, str]
"""A text, or a prompt and its answer."""

Receive = Callable[[int, str, Float[Tensor, "pos d_model"]], None]
"""Called with a text's index, a hook point's name and what passed there; for every text and hook point once."""


def formatted_texts(
    adapter: Adapter, texts: Text | Sequence[Text], prompt_format: PromptFormat | None, system: str | None
) -> list[FormattedPrompt]:
    """Lay out and tokenize texts, or prompts with their answers.

    Raises:
        ValueError: If there are none, or as `format_prompt` says.
        TypeError: For something that is neither a text nor a prompt with its answer.
    """
    found: list[FormattedPrompt] = []
    for text in [texts] if isinstance(texts, str) else texts:
        parts: Any = (text,) if isinstance(text, str) else text
        if not isinstance(parts, tuple) or len(parts) > 2 or not all(isinstance(part, str) for part in parts):
            raise TypeError(f"expected a text or a tuple of a prompt and its answer, got {brief(text)}")
        found.append(format_prompt(adapter, *parts, prompt_format=prompt_format, system=system))
    if not found:
        raise ValueError("there are no texts: give at least one")
    return found


def steered_from(text: FormattedPrompt) -> int:
    """The last prompt token, where CAA starts to steer; the text's first where it has an answer only."""
    return text.spans.get("prompt_end", (0, 1))[0]


def steered_positions(adapter: Adapter, text: FormattedPrompt, recipe: Recipe | None) -> list[bool]:
    """Which positions of a text a recipe changes: none where it adds nothing."""
    start = steered_from(text) if edits_of(adapter, recipe) else len(text.ids)
    return [position >= start for position in range(len(text.ids))]


def run_texts(
    adapter: Adapter,
    texts: Sequence[FormattedPrompt],
    names: Sequence[str],
    receive: Receive,
    *,
    recipe: Recipe | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "text d_vocab"]:
    """Run every text once, steered from its last prompt token on, and hand over what passes the hook points.

    What is handed over is as the next block sees it, steering included, and is on the model's device in its dtype; keep
    no more of it than is needed.

    Args:
        adapter: The model.
        texts: As `formatted_texts` gives them.
        names: Hook points.
        receive: See `Receive`.
        recipe: What to steer with.
        batch_size: Texts run at once; None chooses by their length and the free memory.

    Returns:
        The model's own logits after each text's last token, on the CPU.

    Raises:
        ValueError: For a text that does not fit the model's context or a recipe that does not fit the model, before it
            runs; for a hook point at which nothing passes, after its first pass.
    """
    check_batch_size(batch_size)
    edits = edits_of(adapter, recipe)
    check_context(adapter, [len(text.ids) for text in texts])
    logits: dict[int, Tensor] = {}
    for batch in by_length([len(text.ids) for text in texts], lambda n: batch_size or prompts_at_once(adapter, n)):
        longest = len(texts[batch[0]].ids)
        ids, mask = left_padded(adapter, [texts[index].ids for index in batch])
        starts = torch.tensor([longest - len(texts[index].ids) + steered_from(texts[index]) for index in batch])
        passed: set[str] = set()

        def hand_over(
            name: str, stream: Tensor, hook: Any = None, *, batch: list[int] = batch, passed: set[str] = passed
        ) -> None:
            passed.add(name)
            for row, index in enumerate(batch):
                receive(index, name, stream[row, stream.shape[1] - len(texts[index].ids) :])

        with torch.no_grad(), ExitStack() as stack:
            if edits and recipe is not None:
                where = torch.arange(longest) >= starts[:, None]
                stack.enter_context(steer(adapter.model, recipe, positions=where))
            hooks = [(name, partial(hand_over, name)) for name in names]
            stack.enter_context(adapter.model.hooks(fwd_hooks=hooks))
            last = torch.full((len(batch),), longest - 1, device=adapter.device)
            after = adapter.forward(ids, mask, last)
        if absent := sorted(set(names) - passed):
            raise ValueError(f"nothing passes {', '.join(absent)} in {adapter.name}: leave that site or layer out")
        logits |= {index: after[row].float().cpu() for row, index in enumerate(batch)}
    return torch.stack([logits[index] for index in range(len(texts))])
