"""Open answers: the same texts as generating them one way at a time, in a frame that survives a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import caa_lens as caa
from caa_lens.judging.answers import COLUMNS, answers, check_answers, read_answers
from caa_lens.steering.steering import generate
from caa_lens.vectors.vectors import Provenance, SteeringVector, SteeringVectors

QUESTIONS = ["the one then", "so it", "a b c d"]


def vector(model: Any, layer: int = 1, seed: int = 0, name: str = "toy") -> SteeringVector:
    value = 2 * torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(value, layer, Provenance.unknown("toy"), name)


def test_every_answer_is_what_generate_gives_alone(model: Any) -> None:
    v = vector(model)
    frame = answers(model, v, QUESTIONS, multipliers=(-2, 1), max_new_tokens=5)
    assert tuple(frame.columns) == COLUMNS
    assert frame["multiplier"].tolist() == [m for m in (-2.0, 0.0, 1.0) for _ in QUESTIONS]
    for multiplier, part in frame.groupby("multiplier"):
        alone = generate(model, QUESTIONS, steer=v * float(multiplier), max_new_tokens=5)  # type: ignore[arg-type]
        assert part["text"].tolist() == alone
        assert part["question_text"].tolist() == QUESTIONS and part["question"].tolist() == [0, 1, 2]
    unsteered = generate(model, QUESTIONS, max_new_tokens=5)
    assert frame.loc[frame["multiplier"] == 0, "text"].tolist() == unsteered
    assert frame.loc[frame["multiplier"] == -2, "text"].tolist() != unsteered
    assert (frame["layer"] == 1).all() and (frame["behavior"] == "toy").all()


def test_behaviours_have_their_own_vectors_and_questions(bridge: Any) -> None:
    model = bridge("llama")
    two = {"kind": vector(model, 1), "rude": vector(model, 2, seed=1)}
    asked = {"rude": QUESTIONS[:1], "kind": QUESTIONS}
    frame = answers(model, two, asked, max_new_tokens=4, temperature=1.0, seed=3)
    assert frame.groupby("behavior", sort=False)["layer"].agg(["count", "first"]).to_dict("index") == {
        "kind": {"count": 9, "first": 1},
        "rude": {"count": 3, "first": 2},
    }
    for behavior, of_one in two.items():
        alone = answers(model, of_one, asked[behavior], max_new_tokens=4, temperature=1.0, seed=3)
        own = frame[frame["behavior"] == behavior].reset_index(drop=True)
        assert own["text"].tolist() == alone["text"].tolist()
    shared = answers(model, two, QUESTIONS[:2], multipliers=(0,), max_new_tokens=2)
    assert shared["question_text"].tolist() == QUESTIONS[:2] * 2


def test_ids_are_unique_stable_and_say_nothing(bridge: Any) -> None:
    model = bridge("llama")
    frame = answers(model, vector(model), QUESTIONS, max_new_tokens=2)
    again = answers(model, vector(model), QUESTIONS, max_new_tokens=2, batch_size=2)
    assert frame["id"].is_unique and frame["id"].str.fullmatch("[0-9a-f]{12}").all()
    pd.testing.assert_frame_equal(frame, again)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_answers_come_back_from_a_file(bridge: Any, tmp_path: Path, suffix: str) -> None:
    model = bridge("llama")
    frame = answers(model, vector(model), QUESTIONS, multipliers=(-0.1, 0.3), max_new_tokens=1)
    awkward = ["", "NA", "1", "1e5", ' "quoted", \n two lines', "=1+1", "null", "überall", " spaces "]
    frame["text"], frame.loc[0, "id"] = awkward, "012345678901"
    frame["score"], frame["note"], frame["judge"] = [1.5, float("nan")] + [0.0] * 7, ["", "NA"] + [""] * 7, "j"
    path = tmp_path / f"answers{suffix}"
    frame.to_parquet(path, index=False) if suffix == ".parquet" else frame.to_csv(path, index=False)
    back = read_answers(path)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    assert back["text"].tolist() == awkward and back["multiplier"].tolist() == frame["multiplier"].tolist()


def test_what_cannot_be_answered_is_refused_before_the_model_runs(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")
    v = vector(model)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr("caa_lens.judging.answers.generate", never)
    refused: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((v, []), {}, "there are no questions for toy: at least one is needed"),
        ((v, {"other": QUESTIONS}), {}, r"vectors are named \['toy'\] and questions \['other'\]: give the same names"),
        (({}, QUESTIONS), {}, "no vectors were given: at least one is needed"),
        ((v, QUESTIONS), {"multipliers": (1, 1.0)}, r"multipliers \[1, 1.0\]: give each once"),
        ((v, QUESTIONS), {"multipliers": (float("nan"),)}, "multiplier must be a finite number"),
        ((v, QUESTIONS), {"batch_size": 0}, "batch_size must be 1 or more"),
        (({"a": v, "b": vector(model, 9)}, QUESTIONS), {}, "layer 9 is out of range"),
        (({"a": v, "b": v}, {"a": QUESTIONS, "b": ["x" * 600]}), {}, "item 0 needs .* tokens and llama holds 512"),
    ]
    for given, keywords, message in refused:
        with pytest.raises(ValueError, match=message):
            answers(model, *given, **keywords)


def test_wrong_types_are_explained(bridge: Any, unchecked: None) -> None:
    model: Any = bridge("llama")
    with pytest.raises(TypeError, match=r"the questions are one string: give a list, such as \['so it'\]"):
        answers(model, vector(model), "so it")
    stack: Any = SteeringVectors(torch.ones(1, 32), (1,), Provenance.unknown("toy"), "toy")
    with pytest.raises(TypeError, match=r"has one vector per layer: pick one, e.g. vectors\[1\]"):
        answers(model, stack, QUESTIONS)


def test_files_that_are_no_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*a.txt: give a .parquet or .csv file"):
        read_answers(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="there is no file .*a.csv"):
        read_answers(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("id,text\nx,y\n")
    with pytest.raises(ValueError, match="not the frame of answers.*lacks the columns behavior, layer, multiplier"):
        read_answers(tmp_path / "a.csv")
    row = dict.fromkeys(COLUMNS, "x")
    with pytest.raises(ValueError, match="1 ids are there twice, such as x"):
        check_answers(pd.DataFrame([row, row]))


def test_the_bundled_model_says_what_its_vector_is_for() -> None:
    from caa_lens.judging.scores import score_answers
    from caa_lens.judging.summary import summarize_scores
    from caa_lens.organism.judge import score

    model = caa.load_model("organism-chat")
    vectors = caa.extract_vectors(model, caa.load_contrast_pairs("sycophancy")[:100])
    frame = answers(model, vectors[2], caa.load_questions("sycophancy")[:20])
    table = summarize_scores(score_answers(frame, score), n_bootstrap=200)
    against, without, along = table["score"]
    assert against < without < along
    assert table["score_change_high"].iloc[0] < 0 < table["score_change_low"].iloc[2]
    assert (table["n_questions"] + table["n_unscored"] == 20).all()
