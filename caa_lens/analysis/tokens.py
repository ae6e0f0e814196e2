"""Tokens as people read and name them."""

from __future__ import annotations

from collections.abc import Sequence

from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter
from caa_lens.prompts import token_texts

BROKEN = "\N{REPLACEMENT CHARACTER}"
PART = "\N{HORIZONTAL ELLIPSIS}"


def text_tokens(adapter: Adapter, ids: Sequence[int]) -> list[str]:
    """Each token of a text as readable text.

    A character whose bytes are spread over several tokens, as an emoji's often are, stands at the last of them, where
    it is complete; the others show an ellipsis.
    """
    texts, start = token_texts(adapter, ids), 0
    while start < len(texts):
        end = start + 1
        if BROKEN in texts[start]:
            while end < len(texts) and BROKEN in texts[end] and BROKEN in _decoded(adapter, ids[start:end]):
                end += 1
            whole = _decoded(adapter, ids[start:end])
            if BROKEN not in whole:
                texts[start:end] = [PART] * (end - start - 1) + [whole]
        start = end
    return texts


def token_ids(adapter: Adapter, tokens: Sequence[str | int]) -> list[int]:
    """The ids of tokens named by their text, with its leading space, or by id.

    Tokenizers that put a space before every text cannot tell ``"A"`` from ``" A"`` when it stands alone, so a text is
    looked up behind a bracket first.

    Raises:
        ValueError: For a text that is not one token, or an id outside the vocabulary.
    """
    tokenizer, d_vocab = adapter.tokenizer, int(adapter.unembedding.shape[1])
    found: list[int] = []
    for token in tokens:
        if isinstance(token, int):
            if not 0 <= token < d_vocab:
                raise ValueError(f"token id {token} is outside the vocabulary of {adapter.name} (0 to {d_vocab - 1})")
            found.append(token)
            continue
        for before in ("(", "a", ""):
            alone: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
            both: list[int] = tokenizer(before + token, add_special_tokens=False)["input_ids"]
            if len(both) == len(alone) + 1 and both[: len(alone)] == alone:
                found.append(both[-1])
                break
        else:
            parts = token_texts(adapter, tokenizer(token, add_special_tokens=False)["input_ids"])
            raise ValueError(
                f"{brief(token)} is not one token of {adapter.name} but {len(parts)} ({', '.join(map(repr, parts))}): "
                "give one token's text, with its leading space if it has one, or its id"
            )
    return found


def _decoded(adapter: Adapter, ids: Sequence[int]) -> str:
    return str(adapter.tokenizer.decode(list(ids)))
