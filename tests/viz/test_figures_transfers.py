"""The figure of transfer tables holds what the tables hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from caa_lens.viz import figures

MEASURED = {"effect": 0.1, "balanced_low": 0.05, "balanced_high": 0.15, "n_random": 20, "random_low": -0.02}
MEASURED |= {"random_high": 0.02, "beats_random": 1.0, "n_items": 50}


def row(effect: float, multiplier: float = 1.0, **others: Any) -> dict[str, Any]:
    return {"behavior": "kind", "multiplier": multiplier, "effect_balanced": effect, **MEASURED, **others}


def test_layers_by_layers_with_a_panel_for_each_multiplier() -> None:
    frame = pd.DataFrame(
        [row(made * 0.1 + used * 0.01 + step, step, made_at=made, used_at=used, cosine=0.5, norm=2.0)
         for step in (-1.0, 1.0) for made in (2, 10) for used in (2, 10, 11)]
    )  # fmt: skip
    figure = figures.transfer(frame)
    assert [list(trace.y) for trace in figure.data] == [["2", "10"]] * 2
    assert [list(trace.x) for trace in figure.data] == [["2", "10", "11"]] * 2
    np.testing.assert_allclose(figure.data[1].z, [[1.22, 1.3, 1.31], [2.02, 2.1, 2.11]])
    assert [each.text for each in figure.layout.annotations[:2]] == ["multiplier -1", "multiplier +1"]
    assert len(figure.layout.shapes) == 4, "the two layers at which a vector was made, framed in both panels"
    assert "made at layer 2, used at layer 11, multiplier -1" in figure.data[0].hovertext[0][2]


def test_bold_needs_an_interval_without_zero_and_all_but_a_few_random_vectors() -> None:
    doubtful = [{"balanced_low": -0.1}, {"beats_random": 0.9}]
    rows = [row(0.1, made_at=0, used_at=at, **each) for at, each in enumerate([{}, *doubtful])]
    shown = figures.transfer(pd.DataFrame(rows)).data[0].text[0]
    assert ["<b>" in cell for cell in shown] == [True, False, False]


def test_prompts_are_named_by_what_varies() -> None:
    rows = [
        row(0.1, made_format="chat", made_system=made, used_format="chat", used_system=used, layer=3)
        for made in ("none", "formal")
        for used in ("none", "formal")
    ]
    figure = figures.transfer(pd.DataFrame(rows))
    assert list(figure.data[0].x) == list(figure.data[0].y) == ["none", "formal"]
    both = figures.transfer(pd.DataFrame(rows).assign(used_format="plain", layer=[3, 3, 4, 4]))
    assert list(both.data[0].y) == ["chat / none", "chat / formal"]
    assert both.layout.annotations[0].text == "layer 3, multiplier +1"
    assert not both.layout.shapes, "nothing was used where it was made"


def test_models_by_layer_and_letters_that_cannot_be_balanced() -> None:
    rows = [row(np.nan, vector=name, made_on=f"the-{name}", layer=at) for name in ("base", "chat") for at in (2, 3)]
    figure = figures.transfer(pd.DataFrame(rows))
    assert (list(figure.data[0].y), list(figure.data[0].x)) == (["base", "chat"], ["2", "3"])
    assert np.array(figure.data[0].z).tolist() == [[0.1, 0.1]] * 2, "the plain effect"
    assert "letters cannot be balanced" in figure.layout.title.subtitle.text


def test_what_is_no_transfer_table_is_refused() -> None:
    with pytest.raises(ValueError, match="neither made_at, made_format nor made_on"):
        figures.transfer(pd.DataFrame([row(0.1)]))
    with pytest.raises(ValueError, match="the frame has the behaviours kind, brave: give those of one"):
        figures.transfer(pd.DataFrame([row(0.1, made_at=0, used_at=0), row(0.1) | {"behavior": "brave"}]))
    with pytest.raises(ValueError, match="lacks"):
        figures.transfer(pd.DataFrame([{"behavior": "kind"}]))
