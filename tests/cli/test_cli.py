"""The command line: what it prints, what it writes, and one line for every error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from command import error, run
from typer.testing import CliRunner

import caa_lens.cli.options as options
from caa_lens.cli.app import app
from caa_lens.vectors.vectors import SteeringVectors
from caa_lens.viz import page

ROOT = Path(__file__).parents[2]
GROUPS = {
    name: sorted(getattr(command, "commands", {}))
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}
COMMANDS = tuple(GROUPS)
LEAVES = [(name, *part) for name, parts in GROUPS.items() for part in ([(each,) for each in parts] or [()])]


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_browser", lambda: None)


@pytest.mark.parametrize("command", LEAVES)
def test_every_help_has_an_example(command: tuple[str, ...]) -> None:
    text = run(*command, "--help")
    assert "For example:" in text and f"caa-lens {' '.join(command)}" in text


def test_help_names_every_command() -> None:
    text = run("--help")
    assert all(name in text for name in COMMANDS)


def test_extract_writes_what_the_api_gives(pairs: Path, model: Path, vectors: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    text = run("extract", model, "--data", pairs, "--out", out, "--layers", "1-2", "--quiet")
    made, expected = SteeringVectors.load(out), SteeringVectors.load(vectors)
    assert made.layers == (1, 2) and (made.values == expected.values[1:3]).all()
    assert "10 read, 10 kept" in text and f"written to {out}" in text


def test_extract_reads_where_it_is_told(pairs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    told = ("--read", "-2", "--prompt-format", "llama2", "--system", "Be.", "--quiet")
    run("extract", model, "--data", pairs, "--out", out, *told)
    found = SteeringVectors.load(out).provenance
    assert (found.read_position, found.prompt_format, found.system_prompt) == ("-2", "llama2", "Be.")


def test_generate_stands_side_by_side(model: Path, vectors: Path) -> None:
    asked = ("--prompt", "Hello.", "--max-new-tokens", "3")
    arguments = ("generate", model, *asked)
    steered = ("generate", model, vectors, "--layer", "1", "--multiplier", "-50", *asked)
    [record] = json.loads(run(*steered, "--json"))
    assert set(record) == {"prompt", "unsteered", "steered"} and record["unsteered"] != record["steered"]
    assert json.loads(run(*arguments, "--json")) == [{"prompt": "Hello.", "unsteered": record["unsteered"]}]
    assert "steered at layer 1, -50" in run(*steered)


def test_generate_reads_prompts_from_files(model: Path, tmp_path: Path) -> None:
    lines, questions = tmp_path / "prompts.txt", tmp_path / "questions.json"
    lines.write_text("First.\n\nSecond.\n")
    questions.write_text(json.dumps([{"question": "Third?"}]))
    for file, expected in ((lines, ["First.", "Second."]), (questions, ["Third?"])):
        records = json.loads(run("generate", model, "--prompts", file, "--max-new-tokens", "1", "--json"))
        assert [record["prompt"] for record in records] == expected


def test_generated_markup_is_text(model: Path) -> None:
    assert "> [bold]Hello[/bold] [/]" in run(
        "generate", model, "--prompt", "[bold]Hello[/bold] [/]", "--max-new-tokens", "1"
    )


def test_a_vector_of_another_model_is_noted(tiny_path: Callable[[str], Path], vectors: Path) -> None:
    given = [tiny_path("mistral"), vectors, "--layer", "1", "--prompt", "Hello.", "--max-new-tokens", "1"]
    result = CliRunner().invoke(app, ["generate", *map(str, given)])
    assert result.exit_code == 0
    assert re.search(r"note: .*kind.safetensors was made on llama, and this is mistral", result.stderr)


def test_sweep_prints_a_summary_and_saves_the_frame(pairs: Path, model: Path, vectors: Path, tmp_path: Path) -> None:
    given = ("sweep", model, vectors, "--data", pairs, "--layers", "1,2", "--nulls", "2", "--quiet")
    out = tmp_path / "sweep.csv"
    text = run(*given, "--multipliers", "-1,1", "--out", out)
    assert "beats_random" in text and f"written to {out}" in text
    frame = pd.read_csv(out)
    assert (
        len(frame) == 2 * (3 + 2 * 2) * 10
        and set(frame["kind"]) == {"vector", "random"}
        and set(frame["draw"]) == {-1, 0, 1}
    )
    summary = json.loads(run(*given, "--json"))
    assert [(row["layer"], row["multiplier"]) for row in summary] == [(i, m) for i in (1, 2) for m in (-1.0, 0.0, 1.0)]
    assert summary[1]["share_wrong"] is None, "NaN is no JSON"


def test_tokens_show_what_is_read_and_steered(pairs: Path, model: Path) -> None:
    rows = json.loads(run("tokens", model, "--data", pairs, "--item", "1", "--json"))
    [read] = [row for row in rows if row["read"]]
    assert read["token"] == "A" and read["steered"]
    first = next(row["index"] for row in rows if row["steered"])
    assert "prompt_end" in rows[first]["roles"] and all(row["steered"] for row in rows[first:])
    assert "answer_letter" in run("tokens", model, "--prompt", "Yes? (A) (B)", "--answer", "(B)")
    assert not any(row["read"] for row in json.loads(run("tokens", model, "--prompt", "Yes?", "--json")))


def test_analyze_prints_and_saves(vectors: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    loaded = SteeringVectors.load(vectors)
    (-loaded).save(other)
    matrix = json.loads(run("analyze", "cosine", vectors, other, "--layer", "1", "--json"))
    assert matrix[0][str(other)] == pytest.approx(-1, abs=1e-6), "two vectors of one name go by their files"
    assert len(json.loads(run("analyze", "cosine", vectors, other, "--json"))) == len(loaded)
    frame = json.loads(run("analyze", "compare", vectors, other, "--json"))
    assert [row["cosine"] for row in frame] == pytest.approx([-1.0] * len(loaded), abs=1e-6)
    assert json.loads(run("analyze", "layers", vectors, "--json"))[0]["0"] == pytest.approx(1)
    run("analyze", "norms", vectors, "--out", tmp_path / "norms.csv")
    assert list(pd.read_csv(tmp_path / "norms.csv")["norm"]) == pytest.approx(loaded.norms().tolist())


def test_study_takes_options_over_its_file(pairs: Path, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"name": "mine", "model": str(model), "behaviors": [str(pairs)], "base_model": None}))
    folder = tmp_path / "run"
    options_given = ("--nulls", "2", "--multipliers=-1,1", "--n-questions", "0", "--layers", "1-2", "--quiet")
    text = run("study", "--settings", file, "--folder", folder, *options_given)
    assert re.search(rf"(?m)^Run folder: {re.escape(str(folder))}$", text) and (folder / "index.html").is_file()
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["name"], settings["n_nulls"], settings["layers"]) == ("mine", 2, [1, 2])
    again = json.loads(run("study", "--settings", folder / "settings.json", "--folder", folder, "--json"))
    assert again["folder"] == str(folder) and len(again["findings"]) == 2


def test_a_model_of_ones_own_has_no_base_model(monkeypatch: pytest.MonkeyPatch, pairs: Path) -> None:
    seen = _catch_study(monkeypatch)
    CliRunner().invoke(app, ["study", "mine", "--data", str(pairs)])
    CliRunner().invoke(app, ["study", "--base-model", "none", "--test", f"kind={pairs}", "--read", "-2"])
    assert [(each.model, each.base_model) for each in seen] == [("mine", None), ("organism-chat", None)]
    assert seen[1].test == {"kind": str(pairs)} and seen[1].read == -2


def test_the_demo_is_the_study_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    from caa_lens.studies.settings import StudySettings

    seen = _catch_study(monkeypatch)
    CliRunner().invoke(app, ["demo"])
    assert seen == [StudySettings()]


def _catch_study(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    from caa_lens.studies import run as experiment

    seen: list[Any] = []

    def catch(settings: Any, *_: Any, **__: Any) -> Any:
        seen.append(settings)
        raise ValueError("caught")

    monkeypatch.setattr(experiment, "run_study", catch)
    return seen


def test_what_is_bundled_is_listed() -> None:
    from caa_lens.datasets.contrast import behaviors
    from caa_lens.models.loading import bundled_models

    assert [row["behavior"] for row in json.loads(run("behaviors", "--json"))] == list(behaviors())
    assert [row["model"] for row in json.loads(run("models", "--json"))] == list(bundled_models())
    assert all(name in run("behaviors") for name in behaviors())
    assert all(name in run("models") for name in bundled_models())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("extract {model} --data nonsense --out v.safetensors", "'nonsense' is not a bundled behaviour"),
        ("extract {model} --data missing.json --out v.safetensors", "missing.json"),
        ("extract {model} --data {pairs} --out v.bin", "cannot write v.bin: give a name that ends in .safetensors"),
        ("extract {model} --data {pairs} --out v.safetensors --layers x", "layers 'x' cannot be read: give numbers"),
        ("extract {model} --data {pairs} --out v.safetensors --layers 3-1", "layers '3-1': 3-1 runs backwards"),
        ("extract {model} --data {pairs} --out v.safetensors --layers 1-2,2", "layers '1-2,2': 2 is in it twice"),
        ("extract {model} --data {pairs} --out {pairs}/v.safetensors", "is a file, not a folder; give another path"),
        ("extract {model} --data {pairs} --out v.safetensors --layers 9", "layer 9 is out of range for llama (layers"),
        ("extract {model} --data {pairs} --out v.safetensors --part all", "part"),
        ("extract {model} --data {pairs} --out v.safetensors --read middle", "no 'middle' in"),
        ("extract {model} --data {pairs} --out v.safetensors --dtype int4", "dtype 'int4' is not known"),
        ("extract ./nowhere --data {pairs} --out v.safetensors", "there is no folder ./nowhere"),
        ("generate {model}", "there is nothing to continue: give --prompt, or a file of prompts with --prompts"),
        ("generate {model} --prompt Hi --layer 1", "a vector file and --layer go together"),
        ("generate {model} {vectors} --prompt Hi", "a vector file and --layer go together"),
        ("generate {model} {vectors} --prompt Hi --layer 9", "layer 9 is not in these vectors (layers 0-3)"),
        ("generate {model} none.safetensors --prompt Hi --layer 1", "there is no vector file none.safetensors"),
        ("generate {model} --prompts none.txt", "there is no file none.txt"),
        ("generate {model} --prompt Hi --temperature -1", "temperature -1.0"),
        ("generate {model} --prompt Hi --prompt-format json", "prompt format 'json' is not known"),
        ("generate {model} --prompt Hi --device nowhere", "on device 'nowhere'"),
        ("sweep {model} {vectors} --data {pairs} --multipliers 1,x", "multipliers '1,x' cannot be read"),
        ("sweep {model} {vectors} --data {pairs} --out s.xlsx", "cannot write s.xlsx: give a name"),
        ("sweep {model} {pairs} --data {pairs}", "is not a safetensors file"),
        ("tokens {model}", "give either --prompt or --data"),
        ("tokens {model} --prompt Hi --data {pairs}", "give either --prompt or --data"),
        ("tokens {model} --data {pairs} --item 10", "it has the items 0-9"),
        ("analyze cosine {vectors} {vectors}", "a vector file was given twice"),
        ("analyze cosine {vectors} --layer 9", "layer 9 is not in these vectors"),
        ("analyze norms none.safetensors", "there is no vector file none.safetensors"),
        ("analyze norms {vectors} --out n.json", "cannot write n.json"),
        ("study --settings none.json", "there is no settings file none.json"),
        ("study --nulls 0", "n_nulls: should be greater than or equal to 1, got 0"),
        ("study --test kind", "--test 'kind' cannot be read: give NAME=FILE"),
        ("study --data nonsense", "'nonsense' is not a bundled behaviour"),
    ],
)  # fmt: skip
def test_expected_errors_are_one_line(
    command: str, message: str, pairs: Path, model: Path, vectors: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, unchecked: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments = command.format(model=model, pairs=pairs, vectors=vectors).split()
    assert message in error(*arguments)
    assert list(tmp_path.iterdir()) == [], "a failed command must leave nothing behind"


@pytest.mark.parametrize(
    "command",
    [
        "nonsense",
        "extract",
        "models --nonsense",
        "generate x --seed -1",
        "sweep x v",
        "analyze compare v",
        "sweep x v --data d --nulls -1",
    ],
)
def test_wrong_usage_is_two(command: str) -> None:
    run(*command.split(), code=2)


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["--debug", "analyze", "norms", "none.safetensors"])
    assert isinstance(result.exception, FileNotFoundError)


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("caa_lens.datasets.contrast.behaviors", interrupt)
    assert "interrupted" in run("behaviors", code=130)


@pytest.mark.parametrize(
    ("text", "layers"), [("3", (3,)), ("0-3", (0, 1, 2, 3)), ("1, 4-5", (1, 4, 5)), ("all", None), (None, None)]
)
def test_layers_are_read(text: str | None, layers: tuple[int, ...] | None) -> None:
    assert options.parse_layers(text) == layers


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "caa_lens.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_real_process_prints_results_alone(model: Path) -> None:
    done = process("generate", str(model), "--prompt", "Hello.", "--max-new-tokens", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["prompt"] == "Hello."
    assert done.stderr == "", "the libraries' chatter is silenced"


def test_a_real_process_fails_in_one_line() -> None:
    done = process("analyze", "norms", "none.safetensors")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: there is no vector file none.safetensors\n")
    debugged = process("analyze", "norms", "none.safetensors", "--debug")
    assert debugged.returncode == 1 and "Traceback" in debugged.stderr


def test_the_command_imports_nothing_heavy_of_its_own() -> None:
    """`caa_lens/__init__` may import torch; the command line adds no other library that takes long."""
    code = (
        "import sys, caa_lens.cli.app; print(sorted({'transformers', 'transformer_lens', 'plotly'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_version() -> None:
    assert run("--version").startswith("caa-lens ")
