"""People as judges: a sheet to be filled in, blind and shuffled, and its way back.

The sheet is a CSV for any spreadsheet program: an id, the question, the answer, the rubric, an empty score. Equal
answers are one row; nothing in it tells a multiplier, a layer or a vector. It begins with a mark by which Excel knows
UTF-8, and a text that a program could take for a formula stands behind an apostrophe. What comes back is compared with
what was sent, so that a row that was lost, added or edited is an error with its line and never a wrong score.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from caa_lens.files.whole import write_whole
from caa_lens.judging.scores import Request, key_of, requests_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "question", "answer", "rubric", "score")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_SHOWN = 5


def export_sheet(frame: pd.DataFrame, path: Path, *, rubrics: Mapping[str, str] | None = None, seed: int = 0) -> int:
    """Write a sheet of answers to be rated.

    Args:
        frame: As `answers` returns it.
        path: A .csv file; written whole.
        rubrics: By behaviour, as for `score_answers`.
        seed: Of the order of the rows.

    Returns:
        The number of rows.

    Raises:
        ValueError: For another suffix, and as `score_answers`.
        FileExistsError: If the file is there: it may hold someone's ratings.
    """
    if path.suffix != ".csv":
        raise ValueError(f"cannot write {path}: give a name that ends in .csv")
    requests, _ = requests_of(frame, rubrics)
    if path.exists():
        raise FileExistsError(f"{path} is there already and may hold ratings: give another name")
    random.Random(seed).shuffle(requests)
    text = io.StringIO(newline="")
    sheet = csv.writer(text, quoting=csv.QUOTE_ALL)  # also where a semicolon ends a cell
    sheet.writerow(COLUMNS)
    sheet.writerows([*_row(request), ""] for request in requests)
    write_whole(path, lambda to: to.write_bytes(text.getvalue().encode("utf-8-sig", "replace")))
    return len(requests)


def import_sheet(
    frame: pd.DataFrame, path: Path, *, rubrics: Mapping[str, str] | None = None, rater: str = "human"
) -> pd.DataFrame:
    """Join a sheet that was filled in to the answers it was made from.

    Commas, semicolons and tabs between cells are understood, and 7,5 as well as 7.5; rows may be in any order. An
    empty score leaves an answer unscored.

    Args:
        frame: The frame that `export_sheet` was given.
        path: The sheet.
        rubrics: The ones that `export_sheet` was given.
        rater: Who rated, for the column ``judge``.

    Returns:
        The frame with the columns ``score``, ``note`` and ``judge``, as `score_answers` gives them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: For a file that is not UTF-8 or no such sheet, rows that are missing, repeated, foreign or edited,
            and scores that are no numbers from 0 to 10: one error that names the first few with their lines.
    """
    requests, places = requests_of(frame, rubrics)
    sent = {_row(request)[0]: request for request in requests}
    problems: list[str] = []
    scores: dict[str, float | None] = {}
    for line, row in _read(path):
        name = row["id"].strip()
        if name not in sent:
            problems.append(f"line {line}: the id {name!r} is not among these answers with these rubrics")
        elif name in scores:
            problems.append(f"line {line}: the id {name} is there twice")
        else:
            edited = [
                column
                for column, text in zip(COLUMNS[1:4], _row(sent[name])[1:], strict=True)
                if _bare(row[column]) != _bare(text)
            ]
            problems += [f"line {line}: the {column} is not what was exported" for column in edited]
            scores[name] = None
            if row["score"].strip():
                scores[name] = _score(row["score"])
                if scores[name] is None:
                    problems.append(f"line {line}: the score {row['score'].strip()!r} is no number from 0 to 10")
    missing = [name for name in sent if name not in scores]
    problems += [f"the id {name} is missing" for name in missing]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        found = "; ".join(problems[:_SHOWN])
        raise ValueError(f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}: {found}{more}")
    by_place = [scores[_row(request)[0]] for request in requests]
    values = [by_place[place] for place in places]
    return frame.assign(
        score=[float("nan") if value is None else value for value in values],
        note=["left empty" if value is None else "" for value in values],
        judge=rater,
    )


def _row(request: Request) -> tuple[str, str, str, str]:
    """The cells of one request, without its score."""
    name = f"r{key_of('sheet', request)[:11]}"  # the letter keeps spreadsheets from reading 12e45678 as a number
    return name, _harmless(request.question), _harmless(request.answer), _harmless(request.rubric)


def _harmless(text: str) -> str:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA[:4]) else text


def _bare(text: str) -> str:
    """A cell without what spreadsheets change when they save it: kinds of line ends, spaces at the ends."""
    return (
        "\n".join(line.rstrip() for line in text.encode("utf-8", "replace").decode().splitlines()).strip().lstrip("'")
    )


def _score(text: str) -> float | None:
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if 0 <= value <= 10 else None


def _read(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a sheet, each with the line it begins in."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it as 'CSV UTF-8' in the spreadsheet program") from None
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not header:
                header = [cell.strip().lower() for cell in cells]
                if missing := [name for name in COLUMNS if name not in header]:
                    raise ValueError(f"{path} is no sheet of answers: it lacks the columns {', '.join(missing)}")
            elif any(cell.strip() for cell in cells):
                filled = [*cells, *[""] * (len(header) - len(cells))]
                rows.append((line, dict(zip(header, filled, strict=False))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: this is not CSV: {error}") from None
    if not header:
        raise ValueError(f"{path} is empty")
    return rows
