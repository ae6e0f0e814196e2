"""Token views show every token as it is, with its number, need no network, and hold circuitsvis's script once."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_frames import HOSTILE, token_frame

import caa_lens as caa
from caa_lens.viz import components, stacked, steered_beside, tokens, visible_text
from caa_lens.viz import roles as roles_view
from caa_lens.viz.token_spans import color

BUNDLE = "CircuitsVis.ColoredTokensMulti({"


class _Boxes(HTMLParser):
    """The boxes of a view, as a browser reads them: their text, hover and style; and how many elements there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.boxes: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag == "bdi":
            self.boxes.append(dict(attrs) | {"text": ""})
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "bdi"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.boxes[-1]["text"] += data


def shown_by_jupyter(view: Any) -> str:
    return view._repr_html_()


def data_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return json.loads(found)


@pytest.fixture
def no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_request", lambda: None)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" the", "\xa0the"),
        ("a b", "a\xa0b"),
        (" ", "␣"),
        ("   ", "␣␣␣"),
        ("\n", "↵"),
        ("\r\n", "␍↵"),
        ("\tx", "⇥x"),
        ("", "empty"),
        ("<bos>", "<bos>"),
        ("</script>", "</script>"),
        ("&lt;", "&lt;"),
        ("\u202eevil", "U+202Eevil"),
        ("\u200b", "U+200B"),
        ("\x00", "U+0000"),
        ("\xa0", "U+00A0"),
        ("\ud83d", "U+D83D"),
        ("\ufffd", "\ufffd"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("\N{WOMAN}\u200d\N{ROCKET}", "\N{WOMAN}\u200d\N{ROCKET}"),
        ("\u200d", "U+200D"),
        ("\U000e0041", "U+E0041"),
    ],
    ids=ascii,
)
def test_every_token_can_be_seen(token: str, expected: str) -> None:
    (box,) = _Boxes(f"<bdi>{visible_text.shown(token)}</bdi>").boxes
    assert box["text"] == expected


@given(st.text())
def test_a_token_is_never_markup(token: str) -> None:
    page = _Boxes(visible_text.shown(token))
    assert set(page.counts) <= {"small"}
    plain = [character for character in token if character.isalnum() or character in "<>&\"'"]
    (box,) = _Boxes(f"<bdi>{visible_text.shown(token)}</bdi>").boxes
    kept = iter(box["text"])
    assert all(character in kept for character in plain), "the same characters in the same order"


def test_the_direction_is_that_of_most_letters() -> None:
    assert visible_text.direction(["<bos>", "\u0645\u0631\u062d\u0628\u0627", " \u0645\u0631", " ok"]) == "rtl"
    assert visible_text.direction(["hello", " \u0645"]) == "ltr"
    assert visible_text.direction(["\u202e", "123", ""]) == "ltr"


def test_a_box_for_every_token_with_what_it_is() -> None:
    frame = token_frame(steered_from=4)
    page = _Boxes(tokens(frame, layer=3).html)
    assert [box["text"] for box in page.boxes] == ["<bos>", "Is", "\xa0it", "?", "\xa0(", "A"]
    value = frame["cosine"][2]
    assert page.boxes[2]["title"] == f"' it', position 2, id 102, question, cosine {value:+.3g}"
    assert page.boxes[5]["title"].startswith("'A', position 5, id 105, read, steered, cosine ")
    assert [("border:2px" in box["style"], "border-bottom:3px" in box["style"]) for box in page.boxes] == [
        (False, False),
        (False, False),
        (False, False),
        (False, False),
        (False, True),
        (True, True),
    ]


@pytest.mark.parametrize("column", ["cosine", "projection", "dot"])
def test_the_numbers_are_the_frames(column: Any) -> None:
    frame = token_frame(layers=(3, 5), texts=(("a", "b"), ("c",)))
    shuffled = frame.sample(frac=1, random_state=0)
    data = data_of(tokens(shuffled, column).html)
    assert data["tokens"] == ["a", "b", "c"] and data["layers"] == ["layer 3", "layer 5"]
    by_token = frame.pivot(index=["document", "pos"], columns="layer", values=column).sort_index()
    np.testing.assert_allclose(data["values"], by_token.to_numpy(), rtol=1e-4)
    assert data["numbers"][1][1] == f"{by_token.to_numpy()[1, 1]:+.3g}"


def test_white_is_zero_and_both_ends_are_equally_far() -> None:
    assert color(0.0, 0.3) == "#ffffff"
    assert (color(-0.3, 0.3), color(0.3, 0.3)) == ("#8c2d04", "#08519c")
    assert (color(-9.0, 0.3), color(9.0, 0.3)) == ("#8c2d04", "#08519c"), "beyond the scale is its end"
    assert color(float("nan"), 0.3) == "#dddddd"
    frame = token_frame(layers=(3, 5))
    page = tokens(frame).html
    ordinary = frame[frame["role"] != "bos"]["cosine"].abs().max()
    assert data_of(page)["reach"] == ordinary
    for label in (f"{-ordinary:+.2g}", f"{-ordinary / 2:+.2g}", ">0<", f"{ordinary:+.2g}"):
        assert label in page


def test_noise_does_not_fill_the_scale_and_bos_does_not_stretch_it() -> None:
    frame = token_frame()
    quiet = tokens(frame.assign(cosine=frame["cosine"] * 1e-6)).html
    assert data_of(quiet)["reach"] == 0.05
    loud = frame.assign(dot=frame["dot"].where(frame["role"] != "bos", 1e5))
    page = tokens(loud, "dot").html
    assert data_of(page)["reach"] == frame[frame["role"] != "bos"]["dot"].abs().max()
    assert "and more</span>" in page and "and more</span>" not in quiet
    assert data_of(tokens(frame.assign(dot=0.0), "dot").html)["reach"] > 0


def test_what_is_no_number_is_said() -> None:
    frame = token_frame()
    frame.loc[1, "cosine"] = float("nan")
    page = tokens(frame).html
    box = _Boxes(page).boxes[1]
    assert "#dddddd" in box["style"] and box["title"].endswith("cosine no number")
    assert data_of(page)["values"][1] == [0.0] and data_of(page)["numbers"][1] == ["no number"]


def test_all_layers_are_there_without_a_script_and_the_strongest_is_open() -> None:
    frame = token_frame(layers=(2, 3, 4))
    frame.loc[frame["layer"] == 3, "cosine"] *= 5
    page = tokens(frame).html
    assert re.findall(r"<details( open)?><summary>(layer \d)</summary>", page) == [
        ("", "layer 2"),
        (" open", "layer 3"),
        ("", "layer 4"),
    ]
    assert data_of(page)["start"] == 1
    assert len(_Boxes(page).boxes) == 3 * 6


def test_one_layer_of_several() -> None:
    frame = token_frame(layers=(2, 3))
    assert tokens(frame, layer=3).html == tokens(frame[frame["layer"] == 3]).html
    assert "layer 3" in tokens(frame, layer=3).title


def test_steered_stands_beside_unsteered_on_one_scale() -> None:
    plain = token_frame(texts=(("a", "b"), ("c",)))
    steered = token_frame(texts=(("a", "x"), ("c", "d")), seed=1, steered_from=1).assign(role="")
    steered["cosine"] *= 2
    view = steered_beside(plain, steered)
    data = data_of(view.html)
    assert data["tokens"] == ["a", "b", "a", "x", "c", "c", "d"]
    both = pd.concat([plain, steered])
    assert data["reach"] == both[both["role"] != "bos"]["cosine"].abs().max()
    headings = re.findall(r">(text \d, (?:un)?steered)</div>", view.html)
    assert headings == ["text 0, unsteered", "text 0, steered", "text 1, unsteered", "text 1, steered"]
    assert "grid-template-columns:1fr 1fr" in view.html


@pytest.fixture(scope="module")
def model() -> Any:
    return caa.load_model("organism-chat")


def test_roles_of_a_prompt(model: Any) -> None:
    pair = caa.ContrastPair(prompt="Is it?\n (A) yes\n (B) no", positive="(A)", negative="(B)")
    rows = caa.describe_tokens(model, pair)
    view = roles_view(rows)
    page = _Boxes(view.html)
    assert len(page.boxes) == len(rows) and not view.live and page.counts.get("script", 0) == 0
    for row, box in zip(rows, page.boxes, strict=True):
        assert box["title"].startswith(f"{row.token!r}, position {row.index}, id {row.id}")
        assert ("#E69F00" in box["style"]) == row.read
        assert ("border-bottom:3px" in box["style"]) == row.steered
    (read,) = (row for row in rows if row.read)
    assert f"position {read.index}" in view.html
    assert f"({sum(row.steered for row in rows)} of {len(rows)} tokens)" in view.html
    assert f"answer_letter {read.index}" in view.html


def test_roles_of_a_frame_and_of_text_that_is_only_read_over() -> None:
    view = roles_view(token_frame(layers=(2, 3), steered_from=4))
    assert len(_Boxes(view.html).boxes) == 6 and "bos 0, question 1-3" in view.html
    frame = token_frame().assign(read=False)
    assert "no token is read, none is steered" in roles_view(frame).html


def test_what_project_measures(model: Any) -> None:
    vectors = caa.extract_vectors(model, caa.load_contrast_pairs("sycophancy").split(seed=0)[0][:8])
    frame = caa.analysis.project(model, ["Is it?", "A longer one."], vectors)
    view = caa.viz.tokens(frame, "projection")
    assert data_of(view.html)["tokens"] == frame[frame["layer"] == frame["layer"].min()]["token"].tolist()


@pytest.mark.parametrize("view", [tokens, roles_view], ids=["tokens", "roles"])
def test_hostile_tokens_are_shown_and_not_run(view: Any) -> None:
    plain, page = (_Boxes(view(token_frame([text])).html) for text in (["a"] * len(HOSTILE), HOSTILE))
    assert len(page.boxes) == len(HOSTILE)
    ours = {"small": page.counts["small"], "br": 3}
    assert page.counts == plain.counts | ours
    for token, box in zip(HOSTILE, page.boxes, strict=True):
        assert box["title"].startswith(f"{token!r}, position ")


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    name = "</title><script>alert(1)</script>"
    frame = token_frame().assign(vector=name, role="<b>")
    path = tokens(frame).save(tmp_path / "view.html")
    assert name not in path.read_text(encoding="utf-8") and "&lt;/title&gt;" in path.read_text(encoding="utf-8")
    assert "<b>" not in roles_view(frame).html


def test_hostile_tokens_come_back_from_the_data_unchanged() -> None:
    page = tokens(token_frame([HOSTILE])).html
    assert data_of(page)["tokens"] == list(HOSTILE)


def test_a_saved_page_holds_the_script_once_and_loads_nothing(tmp_path: Path) -> None:
    view = stacked(tokens(token_frame()), tokens(token_frame(layers=(2, 3))), roles_view(token_frame()))
    path = view.save(tmp_path / "new" / "views.html")
    text = path.read_text(encoding="utf-8")
    assert text.count(BUNDLE) == 1
    assert 1_250_000 < len(text) < 1_400_000 and len(view.html) < 20_000
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", text)
    assert "sourceMappingURL" not in text and "unpkg" not in text and "import(" not in text
    assert [file.name for file in path.parent.iterdir()] == ["views.html"], "no temporary file is left"
    roles_only = roles_view(token_frame()).save(tmp_path / "roles.html")
    assert roles_only.stat().st_size < 10_000, "boxes alone need no script"


def test_nothing_in_the_script_ends_it() -> None:
    element = components.script()
    assert element.startswith("<script>") and element.endswith("</script>\n")
    assert element.count("</script") == 1 and "<!--" not in element


def test_sizes_without_the_script() -> None:
    text = [" token"] * 100
    assert len(tokens(token_frame([text])).html) < 30_000
    assert len(tokens(token_frame([text], layers=range(32))).html) < 900_000


class _Kernel:
    """Runs cells as a notebook's kernel does, as far as `components` looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.message = 0
        self.parent: dict[str, Any] = {}
        shell = SimpleNamespace(kernel=object(), get_parent=lambda: self.parent)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
        monkeypatch.setattr(components, "_carrier", {})

    def run(self, cell: str | None, *views: Any) -> list[bool]:
        """Shows the views in one run of the cell; returns which of them carried the script."""
        self.message += 1
        self.parent = {"header": {"msg_id": str(self.message)}, "metadata": {"cellId": cell} if cell else {}}
        return [BUNDLE in shown_by_jupyter(view) for view in views]


def test_a_notebook_holds_the_script_once_also_when_cells_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, view = _Kernel(monkeypatch), tokens(token_frame())
    assert kernel.run("roles", roles_view(token_frame())) == [False], "what needs no script does not carry it"
    assert kernel.run("first", view, view) == [True, False]
    assert kernel.run("second", view) == [False]
    assert kernel.run("first", view, view) == [True, False], "the cell's old output, script and all, is gone"
    assert kernel.run("second", view) == [False]


def test_a_front_end_that_names_no_cells_gets_the_script_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, view = _Kernel(monkeypatch), tokens(token_frame())
    assert [kernel.run(None, view, view), kernel.run(None, view)] == [[True, False], [False]]


@pytest.mark.usefixtures("no_notebook")
def test_outside_of_a_notebook_every_output_works_alone() -> None:
    view = tokens(token_frame())
    assert [BUNDLE in shown_by_jupyter(view) for _ in range(2)] == [True, True]
    assert "characters)" in repr(view) and len(repr(view)) < 100


@pytest.mark.usefixtures("no_notebook")
def test_nothing_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a token view asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert BUNDLE in shown_by_jupyter(tokens(token_frame()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda frame: tokens(frame, cast(Any, "norm")),
            "value 'norm' is not known: give one of cosine, projection, dot",
        ),
        (lambda frame: tokens(frame, layer=7), "layer 7 is not in the frame, which has the layers 3, 5"),
        (lambda frame: tokens(frame[:0]), "the frame has no rows: there is nothing to show"),
        (
            lambda frame: tokens(frame.drop(columns=["token", "read"])),
            "the frame lacks the columns token, read: it has",
        ),
        (lambda frame: tokens(frame.drop(columns="dot"), "dot"), "the frame lacks the columns dot: it has"),
        (
            lambda frame: tokens(pd.concat([frame, frame.assign(vector="hope")])),
            "several rows for text 0, layer 3, position 0; vectors are refusal, hope: keep one vector, such as "
            "frame[frame.vector == 'hope']",
        ),
        (
            lambda frame: tokens(frame[:-1]),
            "text 0 has 6 positions in one layer and 5 in layer 5: every layer needs the same",
        ),
        (
            lambda frame: steered_beside(frame, frame.assign(document=1)),
            "frame has the texts 0 and the steered one 1: project the same texts on the same vectors, with "
            "steer= and without",
        ),
        (
            lambda frame: steered_beside(frame, frame.assign(vector="hope")),
            "the unsteered frame has the vectors refusal and the steered one hope",
        ),
        (lambda frame: steered_beside(frame, frame[frame["layer"] == 3]), "has the layers 3, 5 and the steered one 3"),
        (
            lambda _: roles_view([]),
            "there are no tokens to show: give the rows of describe_tokens, or a frame of project",
        ),
        (lambda frame: roles_view(frame[:0]), "the frame has no rows: there is nothing to show"),
        (lambda _: stacked(), "there are no views to stack: give one or more"),
        (lambda frame: tokens(frame).save("view.png"), "cannot write view.png: give a name that ends in .html"),
    ],
)
def test_what_cannot_be_shown_is_said(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(token_frame(layers=(3, 5)))


def test_without_circuitsvis_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="need circuitsvis, which is not installed: run 'pip install"):
        components.script()
