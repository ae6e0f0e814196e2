"""One prompt without a vector and with it: what the model says, token by token, and which of two choices it takes.

`look` is values in, values out, and `as_html` draws it. `caa_lens.explorer.widget` puts sliders in front of both.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from caa_lens.analysis import project
from caa_lens.datasets.contrast import ContrastDataset, ContrastPair
from caa_lens.interventions.interventions import Intervention
from caa_lens.models.adapters import HookedModel
from caa_lens.prompts import PromptForm, PromptFormat
from caa_lens.steering.steering import generate
from caa_lens.sweeps import sweep
from caa_lens.vectors.vectors import SteeringVector
from caa_lens.viz.theme import INK, OKABE_ITO
from caa_lens.viz.token_spans import FRAME, NOTE
from caa_lens.viz.token_views import steered_beside

if TYPE_CHECKING:
    import pandas as pd

Shown = Literal["cosine", "projection"]

_LETTER_OF_LINE = re.compile(r"^[ \t]*\(([A-Z])\)", re.MULTILINE)
_LETTER = re.compile(r"\(([A-Z])\)")
_SCRIPT = re.compile(r"<script.*?</script>", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One prompt without and with steering.

    Attributes:
        unsteered: The model's own text.
        steered: Its text under steering.
        tokens: Prompt and text of both, unsteered and steered, as `caa_lens.analysis.project` gives them.
        choices: None where the prompt offers no two choices. Else a row for each of ``steered`` (False, True) and
            ``answer``, with ``matching`` (whether it is the answer that shows the behaviour; None where that is not
            known), ``p`` (its probability) and ``share`` (of the two answers' probability).
    """

    unsteered: str
    steered: str
    tokens: tuple[pd.DataFrame, pd.DataFrame]
    choices: pd.DataFrame | None


def look(
    model: HookedModel,
    vector: SteeringVector,
    prompt: str | ContrastPair,
    multiplier: float = 1.0,
    *,
    max_new_tokens: int = 40,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> Look:
    """What a model makes of a prompt, without a vector and with it.

    Texts are continued greedily, both from one pass over the prompt, and steered from the last prompt token on (CAA,
    arXiv 2312.06681, section 3). Their tokens are read from a second pass over prompt and text, steered in the same
    way: steered tokens are seen with the vector added.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vector: Added at its layer, and what tokens are compared with.
        prompt: A text, or a contrast pair: its prompt, with its two answers as the choices. Of a text that offers
            ``(A)`` and ``(B)``, and nothing else, the choices are these. Their probabilities are those of the first
            token where the answers differ, for letters the one after the bracket, as in `caa_lens.sweep`.
        multiplier: Times the vector.
        max_new_tokens: At most.
        prompt_format: See `format_prompt`.
        system: A system prompt.

    Raises:
        ValueError: For an empty prompt, or as `generate`, `project` and `sweep` say.
    """
    text = prompt.prompt if isinstance(prompt, ContrastPair) else prompt
    if not text.strip():
        raise ValueError("the prompt is empty: write a question, or a text for the model to continue")
    form: PromptForm = {"prompt_format": prompt_format, "system": system}
    recipe = Intervention(vector, multiplier)
    vector.unit()  # refuses one without a direction before anything runs
    pair = prompt if isinstance(prompt, ContrastPair) else two_choices(prompt)
    choices = None if pair is None else _choices(model, vector, pair, recipe.multiplier, pair is prompt, form)
    ways: dict[bool, Intervention | None] = {False: None, True: recipe}
    said = {
        way: texts[0]
        for way, texts in generate(model, [text], steer=ways, max_new_tokens=max_new_tokens, **form).items()
    }
    tokens = [
        project(model, [(text, said[way]) if said[way].strip() else text], vector, steer=steer, **form)
        for way, steer in ways.items()
    ]
    return Look(said[False], said[True], (tokens[0], tokens[1]), choices)


def two_choices(prompt: str) -> ContrastPair | None:
    """The prompt with the answers ``(A)`` and ``(B)``, or None where it does not offer just these two.

    Letters count that begin a line, as in CAA's items; where none does, all that are in brackets.

    >>> two_choices("Is it so? (A) Yes (B) No")
    ContrastPair(prompt='Is it so? (A) Yes (B) No', positive='(A)', negative='(B)')
    """
    letters = _LETTER_OF_LINE.findall(prompt) or _LETTER.findall(prompt)
    return ContrastPair(prompt, "(A)", "(B)") if letters == ["A", "B"] else None


def _choices(
    model: HookedModel,
    vector: SteeringVector,
    pair: ContrastPair,
    multiplier: float,
    matching_known: bool,
    form: PromptForm,
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    items = ContrastDataset.from_pairs([pair])
    frame = sweep(model, vector, items, multipliers=(multiplier,), n_nulls=0, **form).set_index("multiplier")
    rows: list[dict[str, Any]] = []
    for steered, cell in ((False, frame.loc[0.0]), (True, frame.loc[multiplier])):
        p = {pair.positive: np.exp(cell["logp_matching"]), pair.negative: np.exp(cell["logp_other"])}
        share = {pair.positive: cell["p_matching"], pair.negative: 1 - cell["p_matching"]}
        for answer in sorted(p):
            matching = answer == pair.positive if matching_known else None
            rows.append(
                {"steered": steered, "answer": answer, "matching": matching, "p": p[answer], "share": share[answer]}
            )
    return pd.DataFrame(rows)


def as_html(found: Look, value: Shown = "cosine") -> str:
    """A `Look` as HTML that needs no script: both texts, the choices if there are any, and the tokens in colour."""
    texts = "".join(
        f'<div style="min-width:0"><div style="{NOTE}">{name}</div>'
        f'<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere">{_text(text)}</div></div>'
        for name, text in (("unsteered", found.unsteered), ("steered", found.steered))
    )
    both = f'<div style="display:grid;grid-template-columns:1fr 1fr;gap:6px 18px;font-size:14px">{texts}</div>'
    choices = "" if found.choices is None else _bars(found.choices)
    return f'<div style="{FRAME}line-height:1.45">{both}{choices}</div>{_still(found, value)}'


def shorten(text: str, longest: int) -> str:
    """A text in one line of at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= longest else f"{words[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def _text(text: str) -> str:
    return html.escape(text.strip()) if text.strip() else f'<span style="{NOTE}">(no text: it ended at once)</span>'


def _still(found: Look, value: Shown) -> str:
    """The token view's boxes: a widget runs no script, so those are taken out; nothing is made of what was read."""
    unsteered, steered = (frame.assign(read=False) for frame in found.tokens)
    return _SCRIPT.sub("", steered_beside(unsteered, steered, value=value).html)


def _bars(choices: pd.DataFrame) -> str:
    """A bar for each of unsteered and steered, divided as the two answers share their probability."""
    rows: list[str] = []
    for steered, part in choices.groupby("steered", sort=True):
        bar = "".join(
            f'<div style="width:{100 * share:.2f}%;background:{color}"></div>'
            for share, color in zip(part["share"], OKABE_ITO, strict=False)
        )
        numbers = " &ensp; ".join(
            f'<span style="color:{color}">&#9632;</span> {html.escape(shorten(answer, 24))} {share:.1%}'
            for answer, share, color in zip(part["answer"], part["share"], OKABE_ITO, strict=False)
        )
        rows.append(
            f"<div>{'steered' if steered else 'unsteered'}</div>"
            f'<div style="display:flex;height:12px;border:1px solid {INK};min-width:60px">{bar}</div>'
            f'<div>{numbers} &ensp; <span style="{NOTE}">together {100 * part["p"].sum():.3g}% of all</span></div>'
        )
    matching = choices.loc[choices["matching"].eq(True), "answer"].unique().tolist()
    which = f"; {html.escape(shorten(matching[0], 24))} shows the behaviour" if matching else ""
    columns = "display:grid;grid-template-columns:auto minmax(60px,1fr) auto;gap:2px 12px;align-items:center"
    return (
        f'<div style="margin-top:10px"><div style="{NOTE}">how the two choices share their probability{which}</div>'
        f'<div style="{columns}">{"".join(rows)}</div></div>'
    )
