"""A local model's score is the mean of the scores it holds possible, computed the slow way here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from plain import plain_logits

import caa_lens as caa
from caa_lens.judging import local as local_judge
from caa_lens.judging.answers import COLUMNS
from caa_lens.judging.local import LocalJudge
from caa_lens.judging.scores import Request, score_answers
from caa_lens.prompts import format_prompt

REQUESTS = [Request("b", "R", "Q?", "A."), Request("b", "R", "Q?", "A longer one."), Request("b", "S", "Q?", "A.")]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models spell their words: the real instructions would not fit beside an answer."""
    monkeypatch.setattr(local_judge, "INSTRUCTIONS", "Rate.")


def plain_probabilities(model: Any, request: Request) -> list[float]:
    """Of each score, from one full pass over the prompt with each score behind it."""
    text = f"Rate.\n\n{local_judge.ask(request.rubric, request.question, request.answer)}"
    found: list[float] = []
    for score in range(11):
        laid_out = format_prompt(model, text, str(score))
        first = laid_out.spans["prompt"][1]
        logp = plain_logits(model, laid_out.ids).double().log_softmax(-1)
        found.append(math.exp(sum(float(logp[at - 1, laid_out.ids[at]]) for at in range(first, len(laid_out.ids)))))
    found[1] -= found[10]  # in every tiny tokenizer 10 is 1, then 0
    return found


def test_the_score_is_the_mean_over_what_is_possible(model: Any) -> None:
    said = list(LocalJudge(model, least_mass=0.0)(REQUESTS))
    assert sorted(place for place, *_ in said) == [0, 1, 2]
    for place, score, note in said:
        probabilities = plain_probabilities(model, REQUESTS[place])
        expected = sum(n * p for n, p in enumerate(probabilities)) / sum(probabilities)
        assert score == pytest.approx(expected, abs=2e-3)
        assert note == f"{sum(probabilities):.2f} of the probability is on a score"


def test_batches_do_not_change_a_score(bridge: Any) -> None:
    model = bridge("llama")
    many, one = (dict(map(_score, LocalJudge(model, least_mass=0.0, batch_size=n)(REQUESTS * 3))) for n in (None, 1))
    assert many == pytest.approx(one, abs=1e-4) and many[0] == pytest.approx(many[3], abs=1e-4)
    assert len({round(score or 0, 4) for score in many.values()}) == 3, "rubric and answer are both looked at"


def _score(said: tuple[int, float | None, str]) -> tuple[int, float | None]:
    return said[0], said[1]


def test_little_mass_on_scores_is_no_score(bridge: Any) -> None:
    model = bridge("llama")
    mass = {place: sum(plain_probabilities(model, request)) for place, request in enumerate(REQUESTS)}
    between = sorted(mass.values())[1] - 1e-6
    said = dict(map(_score, LocalJudge(model, least_mass=between)(REQUESTS)))
    assert {place for place, score in said.items() if score is None} == {min(mass, key=lambda place: mass[place])}


def test_a_model_that_is_sure_gives_that_score(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")
    vocabulary = model.tokenizer.get_vocab()

    def certain(*wanted: str) -> Any:
        def logits(adapter: Any, prompts: Any, branches: Any, receive: Any, **_: Any) -> None:
            table = torch.full((len(branches), len(model.tokenizer)), -50.0)
            for row, branch in enumerate(branches):
                after_one = branch.tokens[-1] == vocabulary["1"]
                table[row, vocabulary[wanted[1] if after_one else wanted[0]]] = 50.0
            receive(list(range(len(branches))), table)

        return logits

    for wanted, expected in ((("7", "0"), 7), (("1", "."), 1), (("1", "0"), 10), (("0", "0"), 0)):
        monkeypatch.setattr(local_judge, "branch_logits", certain(*wanted))
        assert [score for _, score, _ in LocalJudge(model)(REQUESTS[:1])] == [pytest.approx(expected)]


def test_it_judges_frames_and_keeps_scores(bridge: Any, tmp_path: Path) -> None:
    model = bridge("llama")
    rows = [(f"id{n}", "b", 1, float(n), n, "Q?", text) for n, text in enumerate(["A.", "B.", "A."])]
    frame, cache = pd.DataFrame(rows, columns=list(COLUMNS)), tmp_path / "c.jsonl"
    judge = LocalJudge(model, least_mass=0.0)
    scored = score_answers(frame, judge, rubrics={"b": "R"}, cache=cache)
    assert scored["score"].between(0, 10).all() and scored["score"][0] == scored["score"][2] != scored["score"][1]
    assert scored["judge"][0].startswith("llama here (")
    again = score_answers(frame, LocalJudge(model, least_mass=0.0), rubrics={"b": "R"}, cache=cache)
    pd.testing.assert_frame_equal(again, scored)
    assert len(cache.read_text().splitlines()) == 2
    others = {LocalJudge(model).identity, LocalJudge(bridge("mistral"), least_mass=0.0).identity}
    assert judge.identity not in others


def test_what_cannot_judge_is_refused(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="least_mass 1.5 is a probability: give a number from 0 to 1"):
        LocalJudge(bridge("llama"), least_mass=1.5)
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        LocalJudge(bridge("llama"), batch_size=0)
    with pytest.raises(ValueError, match="cannot tell the scores 0 to 10 apart: this model cannot be a judge"):
        list(LocalJudge(caa.load_model("organism-chat"))(REQUESTS))
    long = Request("b", "R", "Q?", "A" * 600)
    with pytest.raises(ValueError, match=r"item 1 needs \d+ tokens and llama holds 512"):
        list(LocalJudge(bridge("llama"))([REQUESTS[0], long]))
