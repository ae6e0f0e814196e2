"""Frames as `caa_lens.analysis.project` returns them, made by hand, with tokens that try to be more than text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

HOSTILE = (
    "<bos>",
    "</script>",
    "<script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    " a<b && c",
    "&lt;",
    "<!--",
    "\n",
    "\n\n",
    "   ",
    "\u202eevil",
    "\u200b",
    "\ufffd",
    "\N{HORIZONTAL ELLIPSIS}",
    "\N{WOMAN}\u200d\N{ROCKET}",
    " \u0645\u0631\u062d\u0628\u0627",
    "\u0301",
    "'\"",
    "\x00",
    "{title}",
    "",
)
"""Markup, white space, overrides, half characters: everything that must be shown as it is."""


def token_frame(
    texts: Sequence[Sequence[str]] = (("<bos>", "Is", " it", "?", " (", "A"),),
    layers: Sequence[int] = (3,),
    *,
    seed: int = 0,
    steered_from: int | None = None,
) -> pd.DataFrame:
    """A frame with a column of every kind; the last token of each text is read."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for index, text in enumerate(texts):
        for layer in layers:
            for pos, token in enumerate(text):
                cosine = float(generator.uniform(-0.4, 0.4))
                rows.append(
                    {
                        "document": index,
                        "pos": pos,
                        "token_id": 100 + pos,
                        "token": token,
                        "role": "bos" if pos == 0 else "question" if pos < 4 else "",
                        "layer": layer,
                        "vector": "refusal",
                        "read": pos == len(text) - 1,
                        "steered": steered_from is not None and pos >= steered_from,
                        "cosine": cosine,
                        "projection": 10 * cosine,
                        "dot": 25 * cosine,
                    }
                )
    return pd.DataFrame(rows)
