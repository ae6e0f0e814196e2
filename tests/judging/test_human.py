"""A sheet for people is blind, harmless and comes back exactly, or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caa_lens.judging.answers import COLUMNS as ANSWER_COLUMNS
from caa_lens.judging.human import COLUMNS, export_sheet, import_sheet
from caa_lens.judging.rubrics import RUBRICS, custom_rubric

AWKWARD = [
    "plain",
    "=SUM(A1:A9)",
    "two\nlines, and a comma",
    '"quoted"; semicolon',
    "@risk",
    "-1",
    "überall ✓",
    "",
    " +1",
]


def frame_of(texts: list[str] = AWKWARD) -> pd.DataFrame:
    rows = [(f"id{n}", "sycophancy", 7777, 1.75, n, f"Question {n}?", text) for n, text in enumerate(texts)]
    return pd.DataFrame(rows, columns=list(ANSWER_COLUMNS))


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def fill(path: Path, score: Callable[[dict[str, str]], Any], **form: Any) -> None:
    """What a spreadsheet program writes after someone has filled in the scores."""
    rows = rows_of(path)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, **form)
        sheet.writeheader()
        sheet.writerows({**row, "score": score(row)} for row in rows)


def question_number(row: dict[str, str]) -> str:
    return row["question"].split(" ")[1].rstrip("?")


def test_a_sheet_is_blind_and_shuffled(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    frame = pd.concat([frame_of(), frame_of().assign(multiplier=0.0, id="again")])
    frame["id"] = [f"{name}{n}" for n, name in enumerate(frame["id"])]
    assert export_sheet(frame, path) == len(AWKWARD), "equal answers are one row"
    rows = rows_of(path)
    assert tuple(rows[0]) == COLUMNS and {row["score"] for row in rows} == {""}
    text = path.read_bytes().decode()
    assert "1.75" not in text and "7777" not in text and "id0" not in text and "sycophancy" not in text
    assert {row["rubric"] for row in rows} == {RUBRICS["sycophancy"]}
    order = [question_number(row) for row in rows]
    assert order != sorted(order)
    export_sheet(frame, other, seed=1)
    assert [question_number(row) for row in rows_of(other)] != order
    assert path.read_bytes()[:3] == b"\xef\xbb\xbf", "the mark by which Excel knows UTF-8"


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    export_sheet(frame_of([*AWKWARD, "\t=1", "\r=1", "\n=1", "  =1"]), path, rubrics={"sycophancy": "=rubric"})
    cells = [cell for row in rows_of(path) for cell in row.values()]
    assert not [cell for cell in cells if cell.strip().startswith(("=", "+", "-", "@"))]
    assert "'=SUM(A1:A9)" in cells and "plain" in cells


@pytest.mark.parametrize("form", [{}, {"delimiter": ";"}, {"delimiter": "\t"}, {"quoting": csv.QUOTE_ALL}])
def test_scores_come_back_to_their_answers(tmp_path: Path, form: dict[str, Any]) -> None:
    path, frame = tmp_path / "a.csv", frame_of()
    export_sheet(frame, path)
    fill(path, lambda row: f" {question_number(row)},5", **form)
    scored = import_sheet(frame, path, rater="Ada")
    assert scored["score"].tolist() == [n + 0.5 for n in range(len(AWKWARD))]
    assert set(scored["judge"]) == {"Ada"} and set(scored["note"]) == {""}
    pd.testing.assert_frame_equal(scored[list(ANSWER_COLUMNS)], frame)


def test_empty_scores_are_unscored_and_doubles_share_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    frame = pd.concat([frame_of(["a", "b"]), frame_of(["a", "c"]).assign(id=["x", "y"], multiplier=0.0)])
    export_sheet(frame, path)
    fill(path, lambda row: {"a": "10", "b": "0", "c": " "}[row["answer"]])
    scored = import_sheet(frame, path)
    assert scored["score"].tolist()[:3] == [10, 0, 10] and scored["score"].isna().iloc[3]
    assert scored["note"].tolist() == ["", "", "", "left empty"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_any_text_makes_the_round_trip(tmp_path: Path, texts: list[str]) -> None:
    path, frame = tmp_path / "any.csv", frame_of(texts)
    path.unlink(missing_ok=True)
    export_sheet(frame, path)
    fill(path, lambda row: 3)
    assert import_sheet(frame, path)["score"].eq(3).all()


def edited(path: Path, change: Callable[[list[dict[str, str]]], Any]) -> None:
    rows = rows_of(path)
    change(rows)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS)
        sheet.writeheader()
        sheet.writerows(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(1), "1 problem: the id r[0-9a-f]{11} is missing"),
        (lambda rows: rows.append(dict(rows[0])), "1 problem: line 5: the id r[0-9a-f]{11} is there twice"),
        (lambda rows: rows.append(rows[0] | {"id": "r1"}), "line 5: the id 'r1' is not among these answers with these"),
        (lambda rows: rows[1].update(answer="better"), "1 problem: line 3: the answer is not what was exported"),
        (lambda rows: rows[2].update(question="?"), "line 4: the question is not what was exported"),
        (lambda rows: rows[2].update(rubric="?"), "line 4: the rubric is not what was exported"),
        (lambda rows: rows[0].update(score="11"), "line 2: the score '11' is no number from 0 to 10"),
        (lambda rows: rows[0].update(score="-1"), "line 2: the score '-1' is no number"),
        (lambda rows: rows[0].update(score="good"), "line 2: the score 'good' is no number"),
        (lambda rows: rows[0].update(score="nan"), "line 2: the score 'nan' is no number"),
        (lambda rows: [row.update(score="x") for row in rows], "3 problems: line 2: .*; line 3: .*; line 4: "),
        (lambda rows: rows.clear(), "3 problems: the id"),
    ],
)
def test_what_was_changed_is_an_error_with_its_line(tmp_path: Path, change: Any, message: str) -> None:
    path, frame = tmp_path / "a.csv", frame_of(["a", "b", "c"])
    export_sheet(frame, path, rubrics={"sycophancy": "one line"})
    edited(path, change)
    with pytest.raises(ValueError, match=rf"a.csv: {message}" if "problem" in message else rf"a.csv: .*{message}"):
        import_sheet(frame, path, rubrics={"sycophancy": "one line"})


def test_lines_are_counted_in_the_file(tmp_path: Path) -> None:
    path, frame = tmp_path / "a.csv", frame_of(["a", "b"])
    export_sheet(frame, path)  # a rubric has three lines
    edited(path, lambda rows: rows[1].update(score="x"))
    with pytest.raises(ValueError, match="line 5: the score 'x'"):
        import_sheet(frame, path)


def test_other_answers_or_rubrics_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    export_sheet(frame_of(["a", "b"]), path)
    for frame, rubrics in ((frame_of(["a", "z"]), None), (frame_of(["a", "b"]), {"sycophancy": custom_rubric("x")})):
        with pytest.raises(ValueError, match="is not among these answers with these rubrics"):
            import_sheet(frame, path, rubrics=rubrics)


def test_files_that_are_no_sheets_are_refused(tmp_path: Path) -> None:
    frame = frame_of(["ä"])
    with pytest.raises(FileNotFoundError, match="there is no file .*none.csv"):
        import_sheet(frame, tmp_path / "none.csv")
    for content, message in (
        (b"id;question;answer;score\n", "is no sheet of answers: it lacks the columns rubric"),
        (b"", "is empty"),
        ("id,question,answer,rubric,score\nr1,\xe4,b,c,1\n".encode("latin-1"), "is not UTF-8: save it as 'CSV UTF-8'"),
        (b'id,question,answer,rubric,score\n"r1,a\n', "line 2: this is not CSV"),
    ):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            import_sheet(frame, tmp_path / "bad.csv")


def test_a_sheet_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ratings of three weeks")
    with pytest.raises(FileExistsError, match="is there already and may hold ratings: give another name"):
        export_sheet(frame_of(), path)
    assert path.read_text() == "ratings of three weeks"
    with pytest.raises(ValueError, match="cannot write .*a.xlsx: give a name that ends in .csv"):
        export_sheet(frame_of(), tmp_path / "a.xlsx")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
