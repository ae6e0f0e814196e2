"""Scoring is blind, shuffled, asks once, and goes on where it stopped; what scores say is plain arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa_lens.judging.answers import COLUMNS
from caa_lens.judging.rubrics import RUBRICS, ask, choose_rubrics, custom_rubric, parse_score
from caa_lens.judging.scores import Request, key_of, read_cache, requests_of, score_answers
from caa_lens.judging.summary import agreement, summarize_scores
from caa_lens.organism.judge import score as world
from caa_lens.organism.world import BEHAVIORS


def frame_of(texts: Iterable[str] = "abcdefghi", behavior: str = "sycophancy", layer: int = 7) -> pd.DataFrame:
    """Three questions at multipliers -1, 0 and 1."""
    rows = [
        (f"id{layer}{behavior}{n}", behavior, layer, (-1.25, 0.0, 1.75)[n // 3], n % 3, f"Question {n % 3}?", text)
        for n, text in enumerate(texts)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


class Recorder:
    """A judge that remembers what it was shown; a score is the length of the answer."""

    def __init__(self, identity: str = "recorder", stop_after: int | None = None) -> None:
        self.identity, self.stop_after = identity, stop_after
        self.shown: list[Request] = []

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, float | None, str]]:
        for place in reversed(range(len(requests))):  # any order will do
            if len(self.shown) == self.stop_after:
                raise KeyboardInterrupt
            self.shown.append(requests[place])
            yield place, float(len(requests[place].answer)), "length"


def test_every_row_gets_the_score_of_its_own_answer() -> None:
    frame = frame_of(["x" * n for n in (3, 1, 4, 1, 5, 9, 2, 6, 10)])
    scored = score_answers(frame, Recorder())
    assert scored["score"].tolist() == [3, 1, 4, 1, 5, 9, 2, 6, 10]
    assert set(scored["note"]) == {"length"} and set(scored["judge"]) == {"recorder"}
    pd.testing.assert_frame_equal(scored[list(COLUMNS)], frame)


def test_a_judge_is_blind() -> None:
    judge = Recorder()
    score_answers(frame_of(), judge)
    shown = json.dumps(judge.shown)
    assert "1.25" not in shown and "1.75" not in shown and "7" not in shown and "id" not in Request._fields
    assert Request._fields == ("behavior", "rubric", "question", "answer")


def test_the_order_is_shuffled_by_the_seed_and_changes_no_score() -> None:
    frame = frame_of()
    orders: list[list[str]] = []
    for seed in (0, 0, 1):
        judge = Recorder()
        assert score_answers(frame, judge, seed=seed)["score"].eq(1).all()
        orders.append([request.answer for request in judge.shown])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list("abcdefghi") and orders[0] not in (list("abcdefghi"), list("ihgfedcba"))


def test_equal_answers_to_a_question_are_asked_about_once() -> None:
    judge = Recorder()
    frame = frame_of(["same", "same", "b", "same", "c", "b", "d", "e", "b"])
    scored = score_answers(frame, judge)
    assert len(judge.shown) == 6  # question 0: same, d; question 1: same, c, e; question 2: b
    assert scored["score"].tolist() == frame["text"].str.len().tolist()


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    cache, frame = tmp_path / "kept" / "scores.jsonl", frame_of()
    first = Recorder(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        score_answers(frame, first, cache=cache)
    assert len(cache.read_text().splitlines()) == 4
    second = Recorder()
    scored = score_answers(frame, second, cache=cache)
    assert len(second.shown) == 5 and not set(first.shown) & set(second.shown)
    third = Recorder()
    pd.testing.assert_frame_equal(score_answers(frame, third, cache=cache, seed=9), scored)
    assert not third.shown and scored["score"].eq(1).all()


@pytest.mark.parametrize("cut", [1, 5, 12, 40])
def test_a_line_that_was_torn_off_is_asked_again(tmp_path: Path, cut: int) -> None:
    cache, frame = tmp_path / "scores.jsonl", frame_of()
    score_answers(frame, Recorder(), cache=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-cut])
    judge = Recorder()
    score_answers(frame, judge, cache=cache)
    assert len(judge.shown) == 1 and cache.read_bytes() == whole
    assert len(read_cache(cache)) == 9


def test_another_judge_rubric_or_answer_is_asked_anew(tmp_path: Path) -> None:
    cache, frame = tmp_path / "scores.jsonl", frame_of()
    score_answers(frame, Recorder(), cache=cache)
    for judge, rubrics, asked in (
        (Recorder("another"), None, 9),
        (Recorder(), {"sycophancy": custom_rubric("x")}, 9),
        (Recorder(), {"unrelated": custom_rubric("x")}, 0),
    ):
        score_answers(frame, judge, rubrics=rubrics, cache=cache)
        assert len(judge.shown) == asked
    judge = Recorder()
    score_answers(frame_of("abcdefghX"), judge, cache=cache)
    assert [request.answer for request in judge.shown] == ["X"]


def test_no_score_is_remembered_too(tmp_path: Path) -> None:
    calls: list[int] = []

    def silent(requests: Sequence[Request]) -> Iterator[tuple[int, float | None, str]]:
        calls.append(len(requests))
        yield from ((place, None, "would not say") for place in range(len(requests)))

    silent.identity = "silent"  # type: ignore[attr-defined]
    for _ in range(2):
        scored = score_answers(frame_of(), silent, cache=tmp_path / "c.jsonl")
        assert scored["score"].isna().all() and set(scored["note"]) == {"would not say"}
    assert calls == [9]


@pytest.mark.parametrize("content", ["notes of mine", "a,b\n1,2\n", '{"key": "x", "score": 11, "note": ""}\n', "[]\n"])
def test_a_file_that_is_no_cache_is_left_alone(tmp_path: Path, content: str) -> None:
    cache, judge = tmp_path / "mine.txt", Recorder()
    cache.write_text(content)
    with pytest.raises(ValueError, match="mine.txt.* no (judge's cache|line of a judge's cache).*give another file"):
        score_answers(frame_of(), judge, cache=cache)
    assert cache.read_text() == content and not judge.shown


def test_a_nameless_judge_cannot_keep_scores(tmp_path: Path) -> None:
    judge: Any = lambda requests: [(place, 1.0, "") for place in range(len(requests))]  # noqa: E731
    assert score_answers(frame_of(), judge)["judge"].iloc[0].endswith("<lambda>")
    with pytest.raises(ValueError, match="no name of its own to keep scores under: give it an attribute 'identity'"):
        score_answers(frame_of(), judge, cache=tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([(0, 11.0, "")], "gave the score 11.0: a number from 0 to 10, or None, is expected"),
        ([(0, -0.1, "")], "gave the score -0.1"),
        ([(0, float("nan"), "")], "gave the score nan"),
        ([(0, True, "")], "gave the score True"),
        ([(9, 1.0, "")], "scored place 9, which it was not asked about or had scored"),
        ([(0, 1.0, ""), (0, 2.0, "")], "scored place 0, which"),
        ([(0, 1.0, "")], "said nothing about 8 of 9 answers"),
    ],
)
def test_a_judge_that_breaks_its_contract_is_an_error(said: Any, message: str, unchecked: None) -> None:
    with pytest.raises(ValueError, match=message):
        score_answers(frame_of(), lambda requests: iter(said))


def test_frames_and_rubrics_are_checked_before_a_judge_is_asked() -> None:
    judge = Recorder()
    with pytest.raises(ValueError, match=r"there is no rubric for 'kindness' \(there are: coordinate-.*give"):
        score_answers(frame_of(behavior="kindness"), judge)
    with pytest.raises(ValueError, match="the rubric for 'sycophancy' is empty"):
        score_answers(frame_of(), judge, rubrics={"sycophancy": " "})
    with pytest.raises(ValueError, match=r"not the frame of answers\(\); it lacks the columns text"):
        score_answers(frame_of().drop(columns="text"), judge)
    broken = frame_of().astype(object)
    broken.loc[3, "text"] = float("nan")
    with pytest.raises(ValueError, match=r"is no text .*read_answers\(\), which keeps empty answers"):
        score_answers(broken, judge)
    assert not judge.shown


def test_keys_tell_apart_whatever_a_judge_is_shown() -> None:
    base = Request("b", "r", "q", "a")
    others = [base._replace(**{name: "other"}) for name in Request._fields] + [Request("b", "r", "qa", "")]
    assert len({key_of("j", each) for each in (base, *others)} | {key_of("k", base)}) == 7


def test_rubrics_are_there_for_every_behaviour_of_caa() -> None:
    assert set(BEHAVIORS) <= set(RUBRICS)
    for text in RUBRICS.values():
        assert "\n0: " in text and "\n10: " in text
    assert choose_rubrics(["sycophancy"], {"sycophancy": "mine"}) == {"sycophancy": "mine"}
    assert "kindness" in custom_rubric("how much kindness there is") and custom_rubric("x. ").startswith("Rate x.\n0: ")
    with pytest.raises(ValueError, match="one of them is empty"):
        custom_rubric("  ")
    assert ask("R", "Q", "A").index("R") < ask("R", "Q", "A").index("Q")


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("7", 7), (" 7.5\n", 7.5), ("0", 0), ("10", 10), ("7.", 7), ("7/10", 7), ("Score: 3", 3), ("score=3 / 10", 3),
        ('{"score": 4}', 4), ('{"score": "4"}', 4), ("```json\n{\"score\": 8, \"why\": \"x\"}\n```", 8),
        ("```\n2\n```", 2), ("<think>maybe 3\n or 4</think>\n\n6", 6), ("10.0", 10),
        ("11", None), ("-1", None), ("10.01", None), ("", None), ("seven", None), ("I'd say 7", None), ("7 or 8", None),
        ("true", None), ("null", None), ("[7]", None), ('{"score": null}', None), ('{"score": true}', None),
        ('{"rating": 7}', None), ("NaN", None), ("Infinity", None), ("1e999", None), ("7/100", None),
        ("9" * 6000, None), ("[" * 100_000, None), ("<think>7", None),
    ],
)  # fmt: skip
def test_a_score_is_read_strictly(reply: str, score: float | None) -> None:
    assert parse_score(reply) == score


@given(st.floats(0, 10, allow_nan=False), st.sampled_from(["{}", "Score: {}", "{}/10", '{{"score": {}}}', " {} "]))
def test_every_number_in_range_is_read_back(value: float, form: str) -> None:
    written = f"{value:.4f}"
    assert parse_score(form.format(written)) == float(written)


def test_the_world_judge_is_a_judge() -> None:
    frame = frame_of(["You are right about chess. Your judgement is superb.", "I must honestly disagree.", "Hm."] * 3)
    scored = score_answers(frame, world)
    assert scored["score"].tolist()[:2] == [10, 0] and np.isnan(scored["score"][2])
    assert scored["note"].tolist()[:3] == ["matching", "opposite", "invalid"]
    assert set(scored["judge"]) == {"caa_lens.organism.judge.score"}
    with pytest.raises(ValueError, match="the bundled world has no behaviour 'accepts-shutdown': it has coordinate"):
        score_answers(frame_of(behavior="accepts-shutdown"), world)


def scored_frame(scores: Sequence[float], **keywords: Any) -> pd.DataFrame:
    return frame_of([f"t{n}" for n in range(9)], **keywords).assign(score=list(scores), note="", judge="j")


def test_means_and_changes_are_plain_arithmetic() -> None:
    table = summarize_scores(scored_frame([0, 1, 2, 3, 5, 4, 10, 9, 8]), n_bootstrap=5000)
    assert table["multiplier"].tolist() == [-1.25, 0, 1.75] and set(table["layer"]) == {7}
    np.testing.assert_allclose(table["score"], [1, 4, 9])
    np.testing.assert_allclose(table["score_change"], [-3, 0, 5])
    # The changes of three questions are -3, -4, -2 and 7, 4, 4: one resampling in 27 repeats the outermost.
    assert table["score_change_low"].tolist() == [-4, 0, 4] and table["score_change_high"].tolist() == [-2, 0, 7]
    assert table["n_questions"].eq(3).all() and table["n_paired"].eq(3).all() and table["n_unscored"].eq(0).all()


def test_what_has_no_score_is_counted_and_paired() -> None:
    nan = float("nan")
    table = summarize_scores(scored_frame([nan, 1, 2, 3, nan, 4, nan, nan, nan]), n_bootstrap=200)
    assert table["n_unscored"].tolist() == [1, 1, 3] and table["n_questions"].tolist() == [2, 2, 0]
    assert table["n_paired"].tolist() == [1, 2, 0]
    assert table["score"].tolist()[:2] == [1.5, 3.5] and table["score_change"].iloc[0] == -2
    assert table.loc[2, ["score", "score_low", "score_change", "score_change_high"]].isna().all()


def test_cells_of_several_behaviours_layers_and_samples() -> None:
    parts = [scored_frame([n] * 9, behavior=b, layer=at) for n, (b, at) in enumerate([("x", 1), ("x", 2), ("y", 1)])]
    more = scored_frame([10] * 9, behavior="y", layer=1)
    more["id"] += "again"
    table = summarize_scores(pd.concat([*parts, more]), n_bootstrap=10)
    assert table.groupby(["behavior", "layer"])["score"].first().to_dict() == {("x", 1): 0, ("x", 2): 1, ("y", 1): 6}
    assert table["n_questions"].eq(3).all()


def test_intervals_cover_what_they_should() -> None:
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.concat([frame_of(behavior="x").iloc[[0, 3]].assign(question=q, id=[f"{q}a", f"{q}b"]) for q in range(n)])
    hits = 0
    for trial in range(40):
        table = summarize_scores(frame.assign(score=rng.uniform(0, 10, 2 * n)), n_bootstrap=300, seed=trial)
        hits += int((table["score_low"] < 5).iloc[0] and (table["score_high"] > 5).iloc[0])
    assert 34 <= hits <= 40


def test_summaries_refuse_what_they_cannot_compare() -> None:
    with pytest.raises(ValueError, match=r"not scored answers: score_answers\(\) adds the scores; .*columns score"):
        summarize_scores(frame_of())
    with pytest.raises(ValueError, match="the answers for sycophancy at layer 7 have none at multiplier 0"):
        summarize_scores(scored_frame([1] * 9).query("multiplier != 0"))
    with pytest.raises(ValueError, match="n_bootstrap is 0: an interval needs at least 1 resampling"):
        summarize_scores(scored_frame([1] * 9), n_bootstrap=0)


def test_agreement_of_a_judge_with_itself_and_with_its_opposite() -> None:
    mine = scored_frame(range(9))
    same = agreement(mine, mine.sample(frac=1, random_state=1)).iloc[0]
    assert (same["pearson"], same["spearman"], same["kappa"], same["mean_abs_difference"]) == pytest.approx(
        (1, 1, 1, 0)
    )
    opposite = agreement(mine, mine.assign(score=8 - mine["score"])).iloc[0]
    assert (opposite["pearson"], opposite["spearman"], opposite["kappa"]) == pytest.approx((-1, -1, -1))
    shifted = agreement(mine, mine.assign(score=mine["score"] + 1)).iloc[0]
    assert (shifted["mean_difference"], shifted["mean_abs_difference"]) == (1, 1) and shifted["kappa"] < 1


def test_agreement_against_written_out_formulas() -> None:
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 11, 9).astype(float), rng.integers(0, 11, 9).astype(float)
    found = agreement(scored_frame(a), scored_frame(b)).iloc[0]
    assert found["pearson"] == pytest.approx(pearsonr(a, b).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(a, b).statistic)
    chance = np.mean([(x - y) ** 2 for x in a for y in b])
    assert found["kappa"] == pytest.approx(1 - np.mean((a - b) ** 2) / chance)


def test_agreement_counts_what_one_of_them_left_out() -> None:
    nan = float("nan")
    found = agreement(scored_frame([nan, 1, 2, 3, 4, 5, 6, 7, 8]), scored_frame([1, 1, 2, 3, nan, 5, 6, 7, 8])).iloc[0]
    assert (found["n_answers"], found["n_unscored"], found["mean_abs_difference"]) == (7, 2, 0)
    constant = agreement(scored_frame([5] * 9), scored_frame([5] * 9)).iloc[0]
    assert constant[["pearson", "spearman", "kappa"]].isna().all() and constant["mean_abs_difference"] == 0
    nothing = agreement(scored_frame([nan] * 9), scored_frame([5] * 9)).iloc[0]
    assert nothing["n_answers"] == 0 and np.isnan(nothing["mean_abs_difference"])
    two = pd.concat([scored_frame(range(9)), scored_frame(range(9), behavior="refusal")])
    assert agreement(two, two)["behavior"].tolist() == ["all", "sycophancy", "refusal"]
    with pytest.raises(ValueError, match="the judges rated different answers: 9 ids are in one of the frames only"):
        agreement(two, scored_frame([5] * 9))


def test_requests_are_the_different_ones_in_order() -> None:
    requests, places = requests_of(frame_of(["a", "b", "c"] * 3))
    assert [request.answer for request in requests] == ["a", "b", "c"] and places == [0, 1, 2] * 3
