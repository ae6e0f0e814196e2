"""A report of very little, for tests to change a part of."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from token_frames import token_frame

from caa_lens.viz import page
from caa_lens.viz import tokens as token_view

HOSTILE = '</script><script>alert(1)</script> <bos> & "quoted" {{ 1 + 1 }}'


def render(**changed: Any) -> str:
    values: dict[str, Any] = {
        "title": "a study",
        "subtitle": "1 behaviour",
        "notes": ["note"],
        "header": ["behaviour", "finding"],
        "rows": [["kind", "steers"], ["kind", "no clear effect"]],
        "meanings": {"finding": "what was found"},
        "sentences": {"kind": ["It steers."]},
        "sections": [page.Section("one", "First figure", "A caption.", go.Figure(go.Scatter(x=[1], y=[2])))],
        "samples": [
            {"behavior": "kind", "layer": 1, "question_text": "Why?", "multiplier": m, "text": f" text at {m}"}
            for m in (1.0, -1.0, 0.0)
        ],
        "tokens": {"kind": [token_view(token_frame())]},
        "tables": [page.Table("norms.csv", "Lengths.", pd.DataFrame({"behavior": ["kind"], "norm": [1.23456]}))],
        "commands": ["caa-lens study --settings settings.json"],
        "settings": {"name": "study", "layers": None},
        "facts": {"Versions": {"python": "3.11"}},
        "files": {"norms.csv": 812},
    }
    return page.render_page(**(values | changed))
