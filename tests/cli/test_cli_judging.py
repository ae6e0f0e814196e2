"""`caa-lens answers` and `caa-lens judge`: the same numbers as the functions, and nothing sent without a yes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import error, run
from typer.testing import CliRunner

import caa_lens as caa
from caa_lens.cli.app import app
from caa_lens.judging import endpoint
from caa_lens.judging.answers import answers, read_answers
from caa_lens.judging.scores import score_answers
from caa_lens.judging.summary import summarize_scores
from caa_lens.organism.judge import score

JUDGES = ("world", "endpoint", "local", "export", "import", "agreement")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vectors") / "v.safetensors"
    caa.extract_vectors(caa.load_model("organism-chat"), caa.load_contrast_pairs("sycophancy")[:60]).save(file)
    return file


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("questions") / "q.json"
    file.write_text(json.dumps([{"question": text} for text in caa.load_questions("sycophancy")[:6]]))
    return file


@pytest.fixture(scope="module")
def answered(vectors: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("answers") / "answers.csv"
    text = run(
        "answers", "organism-chat", vectors, "--layer", 2, "--data", questions, "--out", out, "--quiet"
    )  # fmt: skip
    assert f"18 answers written to {out}" in text and "multiplier" in text
    return out


@pytest.mark.parametrize("command", [("answers",), *(("judge", name) for name in JUDGES)])
def test_every_help_has_an_example(command: tuple[str, ...]) -> None:
    text = run(*command, "--help")
    assert "For example:" in text and f"caa-lens {' '.join(command)}" in text


def test_answers_are_those_of_the_function(vectors: Path, questions: Path, answered: Path, tmp_path: Path) -> None:
    model = caa.load_model("organism-chat")
    vector = caa.SteeringVectors.load(vectors)[2]
    expected = answers(model, vector, caa.load_questions(questions))
    pd.testing.assert_frame_equal(read_answers(answered), expected, check_dtype=False)
    out = tmp_path / "a.parquet"
    given = ("answers", "organism-chat", vectors, "--layer", 2, "--data", questions, "--out", out, "--quiet")
    records = json.loads(run(*given, "--multipliers=-2", "--max-new-tokens", 3, "--json"))
    assert [row["multiplier"] for row in records] == [-2.0] * 6 + [0.0] * 6
    assert read_answers(out)["text"].tolist() == [row["text"] for row in records]


def test_wrong_arguments_of_answers(vectors: Path, questions: Path, tmp_path: Path) -> None:
    given = ("answers", "organism-chat", vectors, "--out", tmp_path / "a.csv", "--layer")
    assert "layer 9 is not in these vectors" in error(*given, 9)
    assert "give a name that ends in .parquet or .csv" in error(*given, 2, "--out", tmp_path / "a.txt")
    assert "a vector file was given twice" in error(*given, 2, vectors)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(vectors.read_bytes())
    assert "for sycophancy, sycophancy: give one file for each behaviour" in error(*given, 2, copy)
    assert "there is no vector file" in error(*given, 2, tmp_path / "none.safetensors")
    assert "there is no file" in error(*given, 2, "--data", tmp_path / "none.json")


def test_the_world_judges(answered: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored.parquet"
    text = run("judge", "world", answered, "--out", out)
    assert "score_low" in text and f"written to {out}" in text
    expected = score_answers(read_answers(answered), score)
    pd.testing.assert_frame_equal(read_answers(out), expected, check_dtype=False)
    table = json.loads(run("judge", "world", answered, "--out", out, "--json"))
    assert [row["score"] for row in table] == pytest.approx(summarize_scores(expected)["score"].tolist())


def test_people_judge(answered: Path, tmp_path: Path) -> None:
    sheet, out, world = tmp_path / "sheet.csv", tmp_path / "people.csv", tmp_path / "world.csv"
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("0: no\n10: yes")
    given = (answered, "--sheet", sheet, "--rubric", f"sycophancy={rubric}")
    assert "answers written to" in run("judge", "export", *given)
    rows = list(csv.DictReader(sheet.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert rows[0]["rubric"] == "0: no\n10: yes"
    assert "is there already and may hold ratings" in error("judge", "export", *given)
    verdict = {place: value for place, value, _ in score([("sycophancy", "", "", row["answer"]) for row in rows])}
    for place, row in enumerate(rows):
        row["score"] = "" if verdict[place] is None else str(verdict[place])
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run("judge", "import", *given, "--out", out, "--rater", "Ada")
    assert set(read_answers(out)["judge"]) == {"Ada"}
    run("judge", "world", answered, "--out", world)
    [found] = json.loads(run("judge", "agreement", out, world, "--json"))
    assert found["mean_abs_difference"] == 0 and found["kappa"] == 1 and found["n_answers"] + found["n_unscored"] == 18
    assert "is not among these answers with these rubrics" in error("judge", "import", *given[:3], "--out", out)


def test_a_local_model_judges(answered: Path, tiny_path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caa_lens.judging.local.INSTRUCTIONS", "Rate.")
    rubric, out = tmp_path / "r.txt", tmp_path / "s.csv"
    rubric.write_text("R")
    given = (answered, "--judge-model", tiny_path("llama"), "--rubric", f"sycophancy={rubric}", "--out", out, "--quiet")
    run("judge", "local", *given, "--least-mass", 0)
    assert read_answers(out)["score"].between(0, 10).all()
    different = read_answers(out)[["question_text", "text"]].drop_duplicates()
    assert len((tmp_path / "s.cache.jsonl").read_text().splitlines()) == len(different) < 18
    result = CliRunner().invoke(app, ["judge", "local", *map(str, given)])
    assert result.exit_code == 0 and "18 of 18 answers have no score, such as: 0." in result.stderr


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Answers every request with a 4, and notes it: the server is in tests/judging/test_endpoint.py."""
    bodies: list[Any] = []

    def send(judge: Any, client: Any, pace: Any, body: Any) -> tuple[str, str]:
        bodies.append(body)
        return "4", "stop"

    monkeypatch.setattr(endpoint.EndpointJudge, "_attempts", send)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    return bodies


def test_an_endpoint_judges_after_a_yes(answered: Path, sent: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    given = (
        "judge",
        "endpoint",
        answered,
        "--judge-model",
        "m",
        "--out",
        out,
        "--price-in",
        1,
        "--price-out",
        2,
        "--quiet",
    )
    told = run(*given, code=1, typed="n\n")
    assert "requests (0 more are in the cache), about" in told and "cost about 0.00" in told
    assert "nothing was sent: answer y, or give --yes" in told and not sent and not out.exists()
    assert "nothing was sent" in run(*given, code=1, typed="")
    run(*given, typed="y\n")
    assert sent and read_answers(out)["score"].eq(4).all()
    n = len(sent)
    again = CliRunner().invoke(app, [*map(str, given), "--json"])
    assert again.exit_code == 0 and len(sent) == n, "all of it is in the cache: nothing to ask for"
    assert "0 requests" in again.stderr and json.loads(again.stdout)[0]["score"] == 4
    run(*given, "--cache", tmp_path / "other.jsonl", "--yes", "--request", '{"max_tokens": null}')
    assert len(sent) == 2 * n and "max_tokens" not in sent[-1] and (tmp_path / "other.jsonl").exists()
    assert "sk-secret" not in "".join(file.read_text() for file in tmp_path.glob("*.jsonl"))


def test_wrong_arguments_of_judges(
    answered: Path, sent: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("judge", "endpoint", answered, "--judge-model", "m", "--out", tmp_path / "s.csv", "--yes", "--quiet")
    assert "--request '[]' is no JSON object" in error(*given, "--request", "[]")
    assert "--request '{' is not JSON" in error(*given, "--request", "{")
    assert "give BEHAVIOR=FILE" in error(*given, "--rubric", "kindness")
    assert "there is no file none.txt" in error(*given, "--rubric", "a=none.txt")
    assert "give both, for a million tokens, or neither" in error(*given, "--price-in", 1)
    assert "give a name that ends in .parquet or .csv" in error("judge", "world", answered, "--out", "s.txt")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "the environment variable OPENAI_API_KEY is not set" in error(*given)
    assert "the environment variable MINE is not set" in error(*given, "--key-from", "MINE")
    assert not sent
    run(*given, "--no-key")
    assert sent
