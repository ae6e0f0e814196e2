"""`caa-lens report`: the report that a study ends with, made again from the files of its folder alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from caa_lens.cli import app as cli
from caa_lens.cli import options
from caa_lens.models import loading as models
from caa_lens.studies import run as experiment
from caa_lens.studies.files import TABLES
from caa_lens.studies.run import read_study, run_study
from caa_lens.studies.settings import StudySettings, study_settings
from caa_lens.viz import page

HOSTILE = "</script><script>alert(1)</script><bos>"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_browser", lambda: None)
    monkeypatch.setattr(options, "quiet_libraries", lambda: None)


@pytest.fixture(scope="session")
def settings(tiny_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> StudySettings:
    source = tmp_path_factory.mktemp("data") / "kind"
    source.mkdir()
    for part, word, n in (("generate", "kind", 12), ("test_ab", HOSTILE, 4)):
        rows = [
            {
                "question": f"{word} {i}?\n (A) yes\n (B) no",
                "answer_matching_behavior": "(A)" if i % 2 else "(B)",
                "answer_not_matching_behavior": "(B)" if i % 2 else "(A)",
            }
            for i in range(n)
        ]
        (source / f"{part}.json").write_text(json.dumps(rows))
    (source / "test_open_ended.json").write_text(json.dumps([{"question": f"Why? {HOSTILE}"}]))
    (source / "neutral.txt").write_text("a b c d e f\n")
    values = {"name": "tiny", "model": str(tiny_path("llama")), "base_model": str(tiny_path("mistral"))}
    values |= {"behaviors": [str(source)], "multipliers": [-1, 1], "n_nulls": 2, "dev_fraction": 0.25}
    return study_settings(values | {"max_new_tokens": 3, "texts": str(source / "neutral.txt")})


@pytest.fixture(scope="session")
def study(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "find_browser", lambda: None)
        return run_study(settings, tmp_path_factory.mktemp("runs") / "tiny", progress=False).folder


def run(*arguments: str | Path, code: int = 0) -> str:
    """`caa-lens report`; its standard output for code 0, its error output otherwise."""
    result = CliRunner().invoke(cli.app, ["report", *map(str, arguments)])
    assert result.exit_code == code, f"exit code {result.exit_code}: {result.output}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


def visible(text: str) -> str:
    """The page without its scripts, as text on one line."""
    bare = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def test_the_report_is_the_one_that_the_study_wrote_and_needs_the_folder_alone(
    study: Path, settings: StudySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model or its data was asked for")

    for module, name in ((models, "load_model"), (experiment, "load_model"), (experiment, "load_study_data")):
        monkeypatch.setattr(module, name, refuse)
    moved = tmp_path / "moved"
    shutil.copytree(study, moved)
    (moved / "index.html").unlink()
    text = run(moved)
    path = moved / "index.html"
    assert text == f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB)\nRun folder: {moved}\n"
    assert path.read_bytes() == (study / "index.html").read_bytes()
    elsewhere = tmp_path / "new" / "mine.html"
    before = {file: file.stat().st_mtime_ns for file in moved.rglob("*")}
    found = json.loads(run(moved, "--out", elsewhere, "--json"))
    assert found == {"folder": str(moved), "report": str(elsewhere), "bytes": elsewhere.stat().st_size}
    assert elsewhere.read_bytes() == path.read_bytes()
    assert {file: file.stat().st_mtime_ns for file in moved.rglob("*")} == before, "the folder is left as it was"


def test_the_report_is_complete_and_small(study: Path, settings: StudySettings) -> None:
    path = study / "index.html"
    assert path.stat().st_size < 5_000_000
    text = path.read_text(encoding="utf-8")
    said = visible(text)
    files = [file for file in study.rglob("*") if file.is_file() and file != path]
    assert [file.name for file in files if file.relative_to(study).as_posix() not in said] == []
    assert HOSTILE in said and HOSTILE not in text
    for name, value in json.loads((study / "settings.json").read_text()).items():
        assert name in said and (not isinstance(value, str) or value in said)
    notes = json.loads((study / "run.json").read_text())
    for value in (*notes["versions"].values(), *notes["machine"].values(), *notes["seconds"]):
        assert str(value) in said
    assert all(value[:16] in said for value in notes["made_from"].values())
    assert "caa-lens study --settings settings.json --folder again caa-lens report again" in said
    assert "'kind', system" not in said and "there are no system prompts for 'kind'" in said


def test_every_table_of_the_folder_is_in_the_report(study: Path) -> None:
    in_folder = {file.name for file in study.iterdir() if file.suffix in (".csv", ".parquet")}
    assert in_folder == set(TABLES)
    text = (study / "index.html").read_text(encoding="utf-8")
    for file in in_folder:
        frame = pd.read_csv(study / file) if file.endswith(".csv") else pd.read_parquet(study / file)
        found = re.search(rf"<b>{re.escape(file)}</b> <span class=\"count\">([\d,]+) rows?,\s(\d+) columns", text)
        assert found and (int(found[1].replace(",", "")), int(found[2])) == frame.shape, file
        assert all(f">{column}</th>" in text for column in frame.columns)


def test_the_findings_stand_beside_the_behaviour(study: Path) -> None:
    text = (study / "index.html").read_text(encoding="utf-8")
    table = text[text.index('<table class="results">') : text.index("</table>")]
    header = re.findall(r"<th[^>]*>([^<]*)</th>", table)
    assert header[:4] == ["behaviour", "layer", "at", "finding"] and header[4:6] == ["P(matching)", "effect [95 %]"]
    [first, second] = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr")[2:]]
    found = read_study(study).tables["findings"]
    assert [first[3], second[3]] == list(found["verdict"]) and [first[0], second[0]] == ["kind", ""]
    assert [first[2], second[2]] == ["-1", "+1"]
    words = " ".join(f"at {m:+g}: {verdict};" for m, verdict in zip((-1, 1), found["verdict"], strict=True))
    assert f"<b>kind</b> {words.removesuffix(';')}" in text


def test_tokens_are_on_the_page_with_what_was_read(study: Path) -> None:
    text = (study / "index.html").read_text(encoding="utf-8")
    part = text[text.index('<h2 id="tokens">') : text.index('<h2 id="tables">')]
    assert "what was read, what was steered" in part and "unsteered beside steered" in part
    [read] = re.findall(r'<bdi [^>]*title="([^"]*, read, steered)"', part)
    assert "answer_letter" in read
    rows = pd.read_parquet(study / "read_tokens.parquet"), pd.read_parquet(study / "sample_tokens.parquet")
    assert part.count("<bdi ") == sum(map(len, rows))


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (["layers.json"], "layers.json"),
        (["sample_tokens.parquet"], "sample_tokens.parquet"),
        (["vectors-base/kind.safetensors"], "vectors-base/kind.safetensors"),
        (["side_effects.parquet", "base_versus_chat.csv"], "side_effects.parquet, base_versus_chat.csv"),
        (
            ["data.csv", "samples.json", "dev.parquet", "norms.csv"],
            "samples.json, data.csv, norms.csv and 1 more files",
        ),
    ],
)
def test_an_unfinished_study_is_named_with_the_command_that_finishes_it(
    study: Path, tmp_path: Path, lost: list[str], named: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(study, folder)
    (folder / "index.html").unlink()
    for name in lost:
        (folder / name).unlink()
    assert run(folder, code=1) == (
        f"error: the study in {folder} is not finished, it lacks {named}: finish it with "
        f"`caa-lens study --settings {folder / 'settings.json'} --folder {folder}`\n"
    )
    assert not (folder / "index.html").exists()


def test_that_command_finishes_it(study: Path, settings: StudySettings, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(study, folder)
    for name in ("index.html", "sample_tokens.parquet", "norms.csv"):
        (folder / name).unlink()
    message = run(folder, code=1)
    [command] = re.findall(r"`caa-lens (.*)`", message)
    result = CliRunner().invoke(cli.app, [*command.split(), "--quiet"])
    assert result.exit_code == 0, result.output
    path = folder / "index.html"
    assert f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB)\nRun folder: {folder}\n" in result.output
    assert (
        visible(path.read_text("utf-8")).split(" Made from ")[0]
        == (visible((study / "index.html").read_text("utf-8")).split(" Made from ")[0])
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{study}", "--out", "report.pdf"), "cannot write report.pdf: give a name that ends in .html"),
        (("{tmp}/none",), "there is no folder {tmp}/none: give the run folder of a study"),
        (("{tmp}",), "{tmp} holds no study: give a run folder, which `caa-lens study` or `caa-lens demo` writes"),
        (("{study}/settings.json",), "there is no folder {study}/settings.json"),
    ],
)
def test_what_is_no_study_is_refused(study: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    where = {"study": study, "tmp": tmp_path}
    said = run(*(each.format(**where) for each in arguments), code=1)
    assert said.startswith(f"error: {message.format(**where)}") and said.count("\n") == 1


def test_settings_that_ask_for_less_have_less(study: Path, settings: StudySettings, tmp_path: Path) -> None:
    """What a setting turns off is neither missed nor shown."""
    folder = tmp_path / "run"
    shutil.copytree(study, folder)
    shutil.rmtree(folder / "vectors-base")
    for name in ("baselines.parquet", "baselines_left_out.json", "side_effects.parquet", "base_versus_chat.csv"):
        (folder / name).unlink()
    less = settings.model_copy(update={"baselines": (), "texts": None, "base_model": None})
    (folder / "settings.json").write_text(less.to_json())
    run(folder)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<b>norms.csv</b>" in text and "Beside prompting" not in text and "Between models" not in text
    assert not re.search(r"baselines.parquet|side_effects|base_versus_chat|vectors-base", text)


def test_images_go_into_the_report_and_beside_it(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    shutil.copytree(study, folder)
    monkeypatch.setattr(page, "find_browser", lambda: "/bin/browser")
    found = page.importlib.util.find_spec
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: True if name == "kaleido" else found(name))
    asked: list[dict[str, float]] = []

    def draw(figures: list[Any], kinds: dict[str, float], _: str) -> dict[str, list[bytes]]:
        asked.append(dict(kinds))
        return {kind: [kind.encode()] * len(figures) for kind in kinds}

    monkeypatch.setattr(page.images, "draw", draw)
    run(folder)
    text = (folder / "index.html").read_text(encoding="utf-8")
    drawn = sorted(file.name for file in (folder / "figures").iterdir())
    assert drawn == sorted(f"{name}.png" for name in re.findall(r'id="plot-(\w+)"', text)) and len(drawn) > 5
    assert {file.read_bytes() for file in (folder / "figures").iterdir()} == {b"png"}
    assert text.count('src="data:image/webp;base64,d2VicA=="') == len(drawn)
    assert "figures/norms.png" in visible(text)
    run(folder, "--out", tmp_path / "other.html")
    assert asked == [{"webp": 1, "png": 2}, {"webp": 1}]
