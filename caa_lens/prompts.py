r"""From text to token ids whose every position has a name.

CAA reads the residual stream at one token (the answer's letter) and writes to it from another token on (the last of the
prompt). Both are easy to miss by one: a template adds a bracket, a tokenizer merges a space, a second BOS slips in. So
text becomes token ids here and nowhere else, once, and every `FormattedPrompt` knows its spans by role.
`describe_tokens` shows, token by token, what is read and what is steered.

Formats: ``chat`` is the tokenizer's own template; ``llama2`` and ``base`` are the two of the CAA paper's code
(``[INST] {question} [/INST] {answer}``, ``Input: {question}\nResponse: {answer}``); ``plain`` joins prompt and answer
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from caa_lens.datasets.contrast import ContrastPair
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, HookedModel, adapt

PromptFormat = Literal["chat", "llama2", "base", "plain"]
LETTER = re.compile(r"\(([A-Z])\)")


@dataclass(frozen=True, slots=True)
class FormattedPrompt:
    """A prompt, and perhaps its answer, as the model sees them.

    Attributes:
        text: The text that was tokenized.
        ids: Its token ids, with exactly one BOS where the model's prompts begin with one; a chat template decides that
            itself, and a second BOS is taken out.
        tokens: Each token as readable text.
        spans: Role to ``(first, after last)`` token. ``prompt`` is everything before the answer and ``prompt_end`` its
            last token; ``question``, ``system``, ``bos``, ``answer``, ``answer_letter`` and ``answer_end`` are there
            where the text has them.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    spans: dict[str, tuple[int, int]]

    def position(self, role: str | int) -> int:
        """Index of the last token of a role, or of a position counted from either end.

        Raises:
            ValueError: If the text has no such role or position; the message lists the roles that it has.
        """
        if isinstance(role, int):
            if not -len(self.ids) <= role < len(self.ids):
                raise ValueError(f"position {role} is outside this prompt of {len(self.ids)} tokens: {self._excerpt()}")
            return role % len(self.ids)
        if role not in self.spans:
            hint = "; for answers that are no letters, read='answer_end'" if role == "answer_letter" else ""
            raise ValueError(
                f"no {brief(role)} in {self._excerpt()}: the roles here are {', '.join(sorted(self.spans))}{hint}"
            )
        return self.spans[role][1] - 1

    def _excerpt(self) -> str:
        return repr(self.text if len(self.text) <= 60 else f"{self.text[:25]}...{self.text[-30:]}")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One token of `describe_tokens`: its place, text and roles, and whether it is read from or written to."""

    index: int
    id: int
    token: str
    roles: tuple[str, ...]
    read: bool
    steered: bool


def default_format(model: HookedModel | Adapter) -> PromptFormat:
    """``chat`` where the tokenizer has a chat template, else ``base``."""
    return "chat" if getattr(adapt(model).tokenizer, "chat_template", None) else "base"


def format_prompt(
    model: HookedModel | Adapter,
    prompt: str,
    answer: str | None = None,
    *,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> FormattedPrompt:
    """Lay out and tokenize one prompt.

    Args:
        model: Gives the tokenizer, and whether prompts begin with BOS.
        prompt: The question, without any template.
        answer: Such as ``(A)``; None for a prompt that the model is to continue.
        prompt_format: See the module; None chooses by `default_format`.
        system: A system prompt. ``llama2`` puts it before ``[INST]`` as the paper's code does (Llama-2's own template
            puts it inside: use ``chat`` for that); ``base`` and ``plain`` put it in front as a paragraph.

    Raises:
        ValueError: For an unknown format, a tokenizer without a template or without offsets, a template that takes no
            system prompt, or text from which no token comes.
    """
    adapter = adapt(model)
    chosen = prompt_format or default_format(adapter)
    if chosen not in get_args(PromptFormat):
        raise ValueError(f"prompt format {brief(chosen)} is not known: give one of {', '.join(get_args(PromptFormat))}")
    before, gap = _layout(adapter.tokenizer, chosen, prompt, answer, system)
    text = before + gap + _answer_text(chosen, answer)
    parts = _located(adapter.tokenizer, chosen, prompt, system, text)
    return _tokenize(adapter, chosen, text, len(before + gap) if answer is not None else None, parts)


def _located(
    tokenizer: Any, chosen: PromptFormat, prompt: str, system: str | None, text: str
) -> dict[str, tuple[int, int]]:
    """Where question and system prompt stand in the text: found by laying out two marks in their places.

    A search for the words themselves would find ``I`` in ``[INST]``. A part that the layout changed is left out.
    """
    marks = {"system": "\u2063s\u2063", "question": "\u2063q\u2063"}
    marked, _ = _layout(tokenizer, chosen, marks["question"], None, marks["system"] if system else None)
    shift, parts = 0, dict[str, tuple[int, int]]()
    for role, part in (("system", system or ""), ("question", prompt if chosen == "plain" else prompt.strip())):
        at = marked.find(marks[role]) + shift
        if part and marks[role] in marked and text[at : at + len(part)] == part:
            parts[role] = (at, at + len(part))
        if marks[role] in marked:
            shift += len(part) - len(marks[role])
    return parts


def _answer_text(chosen: PromptFormat, answer: str | None) -> str:
    return "" if answer is None else answer if chosen == "plain" else answer.strip()


def _layout(
    tokenizer: Any, chosen: PromptFormat, prompt: str, answer: str | None, system: str | None
) -> tuple[str, str]:
    """The text in front of the answer, and what stands between the two."""
    if chosen == "chat":
        return _chat_layout(tokenizer, prompt, answer, system)
    gap = "" if answer is None else " "
    if chosen == "llama2":
        head = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
        return f"{head}[INST] {prompt.strip()} [/INST]", gap
    head = f"{system}\n\n" if system else ""
    if chosen == "base":
        return f"{head}Input: {prompt.strip()}\nResponse:", gap
    return head + prompt, ""


def _chat_layout(tokenizer: Any, prompt: str, answer: str | None, system: str | None) -> tuple[str, str]:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("this tokenizer has no chat template: give prompt_format='base', 'llama2' or 'plain'")
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": prompt})
    from jinja2 import TemplateError

    try:
        before: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        if answer is None:
            return before, ""
        turns.append({"role": "assistant", "content": answer.strip()})
        whole: str = tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError as error:
        raise ValueError(
            f"this tokenizer's chat template refuses the prompt{' with a system prompt' if system else ''}: {error}"
        ) from error
    if not whole.startswith(before):
        return before, ""
    rest = whole[len(before) :]
    if answer.strip() not in rest:
        raise ValueError(
            f"this tokenizer's chat template leaves out the answer {brief(answer)}: use prompt_format='llama2' or "
            "'base'"
        )
    return before, rest[: rest.index(answer.strip())]


def _tokenize(
    adapter: Adapter, chosen: PromptFormat, text: str, answer_at: int | None, parts: dict[str, tuple[int, int]]
) -> FormattedPrompt:
    tokenizer = adapter.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets: load the model with its fast tokenizer"
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = list(encoded["input_ids"])
    offsets: list[tuple[int, int]] = [tuple(pair) for pair in encoded["offset_mapping"]]
    bos: int | None = tokenizer.bos_token_id
    if bos is not None and (adapter.prepends_bos or ids[:1] == [bos]):
        while ids[:1] == [bos]:
            ids, offsets = ids[1:], offsets[1:]
        if chosen != "chat" or text.startswith(tokenizer.bos_token):  # a template decides on BOS itself
            ids, offsets = [bos, *ids], [(0, 0), *offsets]
    if not ids:
        raise ValueError(f"no token comes from the text {brief(text)}: give a prompt that is not empty")
    spans = _spans(ids, offsets, bos, text, answer_at, parts)
    return FormattedPrompt(text, tuple(ids), tuple(token_texts(adapter, ids)), spans)


def _spans(
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    bos: int | None,
    text: str,
    answer_at: int | None,
    parts: dict[str, tuple[int, int]],
) -> dict[str, tuple[int, int]]:
    def tokens_of(start: int, stop: int) -> tuple[int, int]:
        inside = [i for i, (first, after) in enumerate(offsets) if first < stop and after > start]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    n_prompt = len(ids)
    if answer_at is not None:
        n_prompt = next((i for i, (_, after) in enumerate(offsets) if after > answer_at), len(ids))
    spans = {"prompt": (0, n_prompt)}
    if n_prompt:
        spans["prompt_end"] = (n_prompt - 1, n_prompt)
    if bos is not None and ids[0] == bos:
        spans["bos"] = (0, 1)
    spans |= {role: tokens_of(*part) for role, part in parts.items()}
    if answer_at is not None and n_prompt < len(ids):
        spans["answer"] = (n_prompt, len(ids))
        spans["answer_end"] = (len(ids) - 1, len(ids))
        if match := LETTER.match(text[answer_at:].lstrip()):
            at = answer_at + len(text[answer_at:]) - len(text[answer_at:].lstrip()) + match.start(1)
            spans["answer_letter"] = tokens_of(at, at + 1)
    return spans


def token_texts(adapter: Adapter, ids: Sequence[int]) -> list[str]:
    """Each token as readable text, its leading space kept (SentencePiece's ``decode`` of one token drops it).

    Vocabularies are often padded: an id that the tokenizer does not know is shown as such, as in ``<151935>``.
    """
    tokenizer = adapter.tokenizer
    pieces: list[str | None] = tokenizer.convert_ids_to_tokens(list(ids))
    texts: list[str] = []
    for token, piece in zip(ids, pieces, strict=True):
        if piece is None:
            texts.append(f"<{token}>")
        else:
            texts.append(piece.replace("\u2581", " ") if "\u2581" in piece else str(tokenizer.decode([token])) or piece)
    return texts


def common_prefix(first: Sequence[int], second: Sequence[int], at_most: int | None = None) -> int:
    """How many tokens two sequences begin with in common."""
    limit = min(len(first), len(second)) if at_most is None else at_most
    return next((i for i in range(limit) if first[i] != second[i]), limit)


def both_answers(
    adapter: Adapter,
    pair: ContrastPair,
    what: str,
    *,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """A pair's two answers as token ids: both sides, the last prompt token, and the first token that differs.

    Raises:
        ValueError: Beginning with ``what``, where the answers cannot be told apart by one token.
    """
    both = [
        format_prompt(adapter, pair.prompt, answer, prompt_format=prompt_format, system=system)
        for answer in (pair.positive, pair.negative)
    ]
    matching, other = both[0].ids, both[1].ids
    start, differ = min(text.spans["prompt"][1] for text in both) - 1, common_prefix(matching, other)
    if differ >= min(len(matching), len(other)) or not 0 <= start < differ:
        raise ValueError(
            f"{what}: the answers {brief(pair.positive)} and {brief(pair.negative)} cannot be told apart by one token "
            "after the prompt: give answers of which neither begins with the other"
        )
    return matching, other, start, differ


def describe_tokens(
    model: HookedModel | Adapter,
    prompt: str | ContrastPair,
    *,
    read: str | int = "answer_letter",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> list[TokenRow]:
    """Which tokens are read and which are steered, for a prompt or for the positive side of a contrast pair.

    The last prompt token is steered too: it predicts the first token of the answer (CAA, section 3).
    """
    pair = prompt if isinstance(prompt, ContrastPair) else None
    text = pair.prompt if pair else str(prompt)
    formatted = format_prompt(model, text, pair.positive if pair else None, prompt_format=prompt_format, system=system)
    read_at = formatted.position(read) if pair else -1
    steered_from = formatted.position("prompt_end")
    return [
        TokenRow(
            index=index,
            id=token_id,
            token=formatted.tokens[index],
            roles=tuple(role for role, (first, after) in formatted.spans.items() if first <= index < after),
            read=index == read_at,
            steered=index >= steered_from,
        )
        for index, token_id in enumerate(formatted.ids)
    ]
