"""A study end to end on tiny models: its files, its honesty about data, and going on after a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from caa_lens.analysis import project
from caa_lens.models.loading import load_model
from caa_lens.prompts import describe_tokens
from caa_lens.protocols import assessment
from caa_lens.studies import (
    data as study_data,
)
from caa_lens.studies import (
    findings,
)
from caa_lens.studies import (
    folder as run_folder,
)
from caa_lens.studies import (
    measures as study_measures,
)
from caa_lens.studies import (
    report as study_report,
)
from caa_lens.studies import (
    run as experiment,
)
from caa_lens.studies import (
    texts as study_texts,
)
from caa_lens.studies.run import run_study
from caa_lens.studies.settings import StudySettings, read_settings, study_settings
from caa_lens.studies.stages import Run
from caa_lens.viz import page

HOSTILE = "</script><script>alert(1)</script><bos>"


def items(n: int, word: str, start: int = 0) -> list[dict[str, str]]:
    """Two-choice items, the matching letter A and B in turn."""
    letters = [("(A)", "(B)"), ("(B)", "(A)")]
    return [
        {
            "question": f"{word} {start + i}?\n (A) yes\n (B) no",
            "answer_matching_behavior": letters[i % 2][0],
            "answer_not_matching_behavior": letters[i % 2][1],
        }
        for i in range(n)
    ]


def write_behavior(folder: Path, name: str, *, n: int = 12) -> str:
    (folder / name).mkdir(parents=True)
    parts = {
        "generate": items(n, name),
        "test_ab": items(4, name, start=100),
        "test_open_ended": [{"question": f"{name}? {HOSTILE}"}],
    }
    for part, rows in parts.items():
        (folder / name / f"{part}.json").write_text(json.dumps(rows))
    return str(folder / name)


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_browser", lambda: None)


@pytest.fixture(scope="session")
def behaviors_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("behaviors")
    for name in ("kind", "brave"):
        write_behavior(folder, name)
    (folder / "neutral.txt").write_text("a b c d e f\ng h i j\n")
    return folder


@pytest.fixture(scope="session")
def settings(behaviors_at: Path, tiny_path: Callable[[str], Path]) -> StudySettings:
    return study_settings(
        {
            "name": "tiny",
            "model": str(tiny_path("llama")),
            "base_model": str(tiny_path("mistral")),
            "behaviors": [str(behaviors_at / "kind"), str(behaviors_at / "brave")],
            "multipliers": [-1, 1],
            "n_nulls": 3,
            "dev_fraction": 0.25,
            "max_new_tokens": 3,
            "texts": str(behaviors_at / "neutral.txt"),
        }
    )


@pytest.fixture(scope="session")
def study(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> experiment.StudyResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "find_browser", lambda: None)
        return run_study(settings, tmp_path_factory.mktemp("runs") / "tiny", progress=False)


@pytest.fixture
def refuse_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every use of a model an error."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was used")

    for name in ("load_model", "extract_vectors", "sweep"):
        monkeypatch.setattr(experiment, name, refuse)
    for name in ("generate", "project", "describe_tokens"):
        monkeypatch.setattr(study_texts, name, refuse)
    for name in ("extract_activations", "compare", "damage"):
        monkeypatch.setattr(study_measures, name, refuse)


def times(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_every_file_is_there(study: experiment.StudyResult) -> None:
    expected = {
        *("settings.json", "run.json", "data.csv", "dev.parquet", "dev_summary.csv", "layers.json", "test.parquet"),
        *("summary.csv", "samples.json", "samples.csv", "cosines.csv", "cosines_by_layer.csv", "cross_layer.csv"),
        *("norms.csv", "base_versus_chat.csv", "index.html"),
        *("asked_twice.parquet", "reading.parquet", "assessment.parquet", "read_tokens.parquet"),
        *("baselines.parquet", "baselines_left_out.json", "side_effects.parquet", "sample_tokens.parquet"),
        *(f"{folder}/{name}.safetensors" for folder in ("vectors", "vectors-base") for name in ("kind", "brave")),
    }
    assert set(times(study.folder)) == expected


def test_the_layer_is_chosen_on_dev_and_reported_on_test(study: experiment.StudyResult) -> None:
    dev, test = study.tables["dev_summary"], study.tables["summary"]
    assert set(dev["layer"]) == {0, 1, 2, 3} and set(dev["n_items"]) == {3}
    for name, layer in study.layers.items():
        wide = dev[dev["behavior"] == name].pivot(index="layer", columns="multiplier", values="effect_balanced")
        assert layer == (wide[1.0] - wide[-1.0]).idxmax()
        assert set(test[test["behavior"] == name]["layer"]) == {layer}
    pooled = dev.groupby(["layer", "multiplier"])["effect_balanced"].mean().unstack()
    assert study.common_layer == (pooled[1.0] - pooled[-1.0]).idxmax()
    assert set(test["n_items"]) == {4} and set(test[test["multiplier"] != 0]["n_random"]) == {3}


def test_baselines_that_cannot_be_asked_are_left_out_with_the_reason(study: experiment.StudyResult) -> None:
    reasons = json.loads((study.folder / "baselines_left_out.json").read_text(encoding="utf-8"))
    assert set(reasons) == {"kind, system", "brave, system"}
    assert "there are no system prompts for 'kind'" in reasons["kind, system"]
    table = study.tables["baselines"]
    assert set(table["baseline"]) == {"none", "few_shot"} and set(table["behavior"]) == {"kind", "brave"}


def test_the_assessment_is_that_of_the_test_items(study: experiment.StudyResult) -> None:
    table, summary = study.tables["assessment"], study.tables["summary"]
    both = summary[summary["multiplier"] != 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(table[list(both.columns)], both, check_exact=False)
    assert {"n_random", "n_permuted", "n_shuffled", "reliability", "slope_balanced"} <= set(table.columns)
    assert set(study.tables["side_effects"]["layer"]) == set(study.layers.values())


def test_no_test_item_is_used_before_the_report(settings: StudySettings, study: experiment.StudyResult) -> None:
    data = study_data.load_study_data(settings)
    for name, of_name in data.items():
        parts = [{pair.prompt for pair in part} for part in (of_name.train, of_name.dev, of_name.test)]
        assert [len(part) for part in parts] == [9, 3, 4] and len(set.union(*parts)) == 16
        assert study.vectors[name].provenance.n_pairs == 9
        assert study.vectors[name].provenance.dataset_hash == of_name.train.hash
    assert list(study.tables["data"]["seen"]) == [0, 0]


def test_analyses_are_of_the_vectors(study: experiment.StudyResult) -> None:
    kind, brave = study.vectors["kind"], study.vectors["brave"]
    layer, base = study.common_layer, study.base_vectors["kind"]
    expected = float(kind[layer].cosine(brave[layer].values))
    assert study.tables["cosines"].loc["kind", "brave"] == pytest.approx(expected, abs=1e-6)
    frame = study.tables["base_versus_chat"].query("behavior == 'kind' and layer == 1")
    assert float(frame["cosine"].iloc[0]) == pytest.approx(float(kind[1].cosine(base[1].values)), abs=1e-6)
    cross = study.tables["cross_layer"].query("behavior == 'kind' and layer_a == 1 and layer_b == 2")
    assert float(cross["cosine"].iloc[0]) == pytest.approx(float(kind[1].cosine(kind[2].values)), abs=1e-6)


def test_samples_stand_at_minus_one_zero_one(study: experiment.StudyResult) -> None:
    assert [sample["multiplier"] for sample in study.samples] == [-1.0, 0.0, 1.0] * 2
    assert {sample["layer"] for sample in study.samples if sample["behavior"] == "kind"} == {study.layers["kind"]}


def test_the_page_escapes_questions(study: experiment.StudyResult) -> None:
    text = (study.folder / "index.html").read_text(encoding="utf-8")
    assert HOSTILE not in text and "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;bos&gt;" in text


def test_the_page_tells_what_was_found(study: experiment.StudyResult) -> None:
    text = (study.folder / "index.html").read_text(encoding="utf-8")
    assessed = study.tables["assessment"]
    for each in (assessment.describe_assessment(part) for _, part in assessed.groupby("behavior")):
        assert len(each) > 5 and not [said for said in each if str(escape(said)) not in text]
    assert "chosen on dev items" in text and "caa-lens study --settings" in text


def test_tokens_that_were_read_and_steered_are_shown(study: experiment.StudyResult, settings: StudySettings) -> None:
    table = study.tables["read_tokens"]
    model = load_model(settings.model)
    for name, items in study_data.load_study_data(settings).items():
        rows = table[table["behavior"] == name].to_dict("records")
        expected = describe_tokens(model, items.train[0])
        assert [row["token_id"] for row in rows] == [each.id for each in expected]
        assert [row["token"] for row in rows if row["read"]] == [items.train[0].positive.strip("()")]
        assert [row["steered"] for row in rows] == [each.steered for each in expected]
        assert [row["roles"] for row in rows] == [", ".join(each.roles) for each in expected]


def test_a_vector_is_in_the_tokens_of_a_steered_text(study: experiment.StudyResult, settings: StudySettings) -> None:
    table, [question, *_] = study.tables["sample_tokens"], study_data.load_study_data(settings)["kind"].questions
    part = table[table["behavior"] == "kind"]
    assert set(part["multiplier"]) == {0.0, 1.0} and not part["read"].any()
    vector = study.vectors["kind"][study.layers["kind"]]
    [text] = [s["text"] for s in study.samples if s["behavior"] == "kind" and s["multiplier"] == 1.0]
    again = project(load_model(settings.model), [(question, text)], vector, steer=vector)
    steered = part[part["multiplier"] == 1.0]
    np.testing.assert_allclose(steered["cosine"], again["cosine"], atol=1e-5)
    assert list(steered["steered"]) == list(again["steered"]) and not part[part["multiplier"] == 0]["steered"].any()


def test_a_text_that_fills_the_context_is_left_out_and_what_is_read_is_not(
    study: experiment.StudyResult, settings: StudySettings, tmp_path: Path
) -> None:
    last = settings.model_copy(update={"read": -1})
    run = Run(last, tmp_path, study_data.load_study_data(settings), progress=False)
    model = load_model(settings.model)
    longer = [each | {"text": each["text"] + " yes" * 600} for each in study.samples if each["behavior"] == "kind"]
    samples = longer + [each for each in study.samples if each["behavior"] == "brave"]
    study_texts.show_tokens(run, lambda: model, study.vectors, study.layers, samples)
    assert set(pd.read_parquet(tmp_path / "sample_tokens.parquet")["behavior"]) == {"brave"}
    read = pd.read_parquet(tmp_path / "read_tokens.parquet").query("read").set_index("behavior")
    assert sorted(read.index) == ["brave", "kind"] and set(read["token"]) == {")"}, "where the settings read"


@pytest.mark.parametrize(
    ("multipliers", "chosen"), [((-1.0, 0.0, 1.0), [0.0, 1.0]), ((-2.0, 0.0), [0.0, -2.0]), ((), [])]
)
def test_the_text_that_is_shown_token_by_token(multipliers: tuple[float, ...], chosen: list[float]) -> None:
    rows = [
        {"behavior": b, "question_text": q, "multiplier": m, "text": f"{b} {q} {m}"}
        for b in ("brave", "kind")
        for m in multipliers
        for q in ("first", "second")
    ]
    found = study_texts.first_texts(rows, "kind")
    assert found == {multiplier: ("first", f"kind first {multiplier}") for multiplier in chosen}
    assert list(found) == chosen


def test_figures_hold_the_numbers_of_the_tables(study: experiment.StudyResult) -> None:
    made = study_report.study_figures(study)
    line = next(trace for trace in made["dose_response"][0].data if trace.name == "letter-balanced")
    part = study.tables["summary"].query("behavior == 'kind'")
    np.testing.assert_array_equal(line.y, part["effect_balanced"])
    np.testing.assert_array_equal(np.array(made["cosines"][0].data[0].z), study.tables["cosines"])


def test_a_second_run_computes_nothing(
    study: experiment.StudyResult, settings: StudySettings, refuse_models: None
) -> None:
    before = times(study.folder)
    again = run_study(settings, study.folder, progress=False)
    assert times(study.folder) == before
    pd.testing.assert_frame_equal(again.tables["findings"], study.tables["findings"])
    assert again.vectors == study.vectors and again.samples == study.samples


def test_a_killed_run_goes_on(
    study: experiment.StudyResult, settings: StudySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    generate = study_texts.generate

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_texts, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(settings, folder, progress=False)
    early = times(folder)
    assert "test.parquet" in early and "samples.json" not in early
    assert not [name for name in early if Path(name).name.startswith(".")], "temporary files were left behind"
    monkeypatch.setattr(study_texts, "generate", generate)
    monkeypatch.setattr(experiment, "sweep", killed)
    result = run_study(settings, folder, progress=False)
    late = times(folder)
    assert {name: late[name] for name in early if name != "run.json"} == {
        name: time for name, time in early.items() if name != "run.json"
    }
    pd.testing.assert_frame_equal(result.tables["findings"], study.tables["findings"])


def test_a_lost_vector_is_made_again_alone(study: experiment.StudyResult, settings: StudySettings) -> None:
    lost = study.folder / "vectors" / "kind.safetensors"
    lost.unlink()
    before = times(study.folder)
    again = run_study(settings, study.folder, progress=False)
    changed = {name for name, time in times(study.folder).items() if before.get(name) != time}
    assert changed == {"vectors/kind.safetensors", "run.json"} and again.vectors == study.vectors


def test_other_settings_are_refused(study: experiment.StudyResult, settings: StudySettings) -> None:
    other = settings.model_copy(update={"seed": 7, "n_nulls": 4})
    message = re.escape("other settings: n_nulls (3, now 4), seed (0, now 7); give another folder")
    with pytest.raises(ValueError, match=message):
        run_study(other, study.folder, progress=False)


def test_changed_data_is_refused(settings: StudySettings, tmp_path: Path, refuse_models: None) -> None:
    source = write_behavior(tmp_path, "kind")
    mine = settings.model_copy(update={"behaviors": (source,)})
    with pytest.raises(AssertionError, match="a model was used"):
        run_study(mine, tmp_path / "run", progress=False)
    (tmp_path / "run" / "data.csv").write_text("a result that was there before the run was killed")
    (Path(source) / "test_ab.json").write_text(json.dumps(items(4, "other")))
    with pytest.raises(ValueError, match="the data of kind has changed since the run folder"):
        run_study(mine, tmp_path / "run", progress=False)


def test_a_folder_without_a_result_can_be_begun_again(
    settings: StudySettings, tmp_path: Path, refuse_models: None
) -> None:
    """A mistyped model fails before there is a result; the corrected command may use the same folder."""
    mistyped = settings.model_copy(update={"model": "organsm"})
    for attempt in (mistyped, settings):
        with pytest.raises(AssertionError, match="a model was used"):
            run_study(attempt, tmp_path / "run", progress=False)


def test_broken_notes_are_named(settings: StudySettings, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a result")
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(ValueError, match="settings.json should hold a JSON object, it holds a list: give a new folder"):
        run_study(settings, tmp_path, progress=False)


def test_device_and_batch_size_are_not_what_a_study_is(settings: StudySettings) -> None:
    assert settings.model_copy(update={"device": "cpu", "batch_size": 3}).hash == settings.hash
    assert settings.model_copy(update={"seed": 5}).hash != settings.hash


def test_foreign_folders_are_refused(settings: StudySettings, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no study: give a new folder"):
        run_study(settings, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"thesis.txt is a file: give a folder"):
        run_study(settings, tmp_path / "thesis.txt", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_nothing_is_written_when_data_is_missing(settings: StudySettings, tmp_path: Path) -> None:
    mine = settings.model_copy(update={"behaviors": (str(tmp_path / "none.json"),)})
    with pytest.raises(FileNotFoundError):
        run_study(mine, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_without_a_base_model_and_a_test_file(tmp_path: Path, tiny_path: Callable[[str], Path]) -> None:
    file = tmp_path / "polite.json"
    file.write_text(json.dumps(items(20, "polite")))
    small = {"name": "small", "model": str(tiny_path("gpt2")), "base_model": None, "behaviors": [str(file)]}
    small |= {"multipliers": [2], "layers": [1], "n_nulls": 1, "n_questions": 0, "baselines": [], "texts": None}
    result = run_study(study_settings(small), tmp_path / "run", progress=False)
    assert result.layers == {"polite": 1} and result.base_vectors == {} and "base_versus_chat" not in result.tables
    assert result.tables["data"].iloc[0].to_dict() | {"test_letters": ""} == {
        **{"behavior": "polite", "n_train": 12, "n_dev": 4, "n_test": 4, "test_letters": "", "seen": 0}
    }
    assert list(result.tables["findings"]["multiplier"]) == [2.0] and result.samples == []
    assert result.tables["sample_tokens"].empty and result.tables["read_tokens"]["read"].sum() == 1
    assert "No open-ended questions" in (tmp_path / "run" / "index.html").read_text(encoding="utf-8")


def test_prompts_of_test_items_stand_in_for_questions(settings: StudySettings, behaviors_at: Path) -> None:
    mine = settings.model_copy(update={"behaviors": (str(behaviors_at / "kind" / "generate.json"),)})
    of_kind = study_data.load_study_data(mine)["kind"]
    assert of_kind.questions == tuple(pair.prompt for pair in of_kind.test)[:3]


def test_an_explicit_test_file_goes_first(settings: StudySettings, behaviors_at: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(items(2, "mine") + items(1, "kind")))
    data = study_data.load_study_data(settings.model_copy(update={"test": {"kind": str(file)}, "max_pairs": 8}))
    assert len(data["kind"].test) == 3 and len(data["kind"].train) + len(data["kind"].dev) == 8
    assert list(study_data.describe(data)["seen"]) == [1, 0], "a test prompt among the pairs must be counted"


def test_an_explicit_dev_file_frees_the_pairs(settings: StudySettings, tmp_path: Path) -> None:
    file, source = tmp_path / "dev.json", tmp_path / "kind.json"
    file.write_text(json.dumps(items(5, "dev")))
    source.write_text(json.dumps(items(8, "kind")))
    alone = settings.model_copy(update={"behaviors": (str(source),), "dev": {"kind": str(file)}})
    both = alone.model_copy(update={"test": {"kind": str(file)}})
    for each, sizes in ((alone, (6, 5, 2)), (both, (8, 5, 5))):
        of_kind = study_data.load_study_data(each)["kind"]
        assert (len(of_kind.train), len(of_kind.dev), len(of_kind.test)) == sizes
    [seen] = study_data.describe(study_data.load_study_data(both))["seen"]
    assert seen == 5, "items that choose the layer must not be counted as unseen"


def test_data_errors_name_the_behavior(settings: StudySettings, behaviors_at: Path) -> None:
    with pytest.raises(ValueError, match="there is no behaviour 'bold' in this study .there are: kind, brave"):
        study_data.load_study_data(settings.model_copy(update={"test": {"bold": "x.json"}}))
    twice = (str(behaviors_at / "kind"), str(behaviors_at / "kind" / "generate.json"))
    with pytest.raises(ValueError, match="two behaviours are called 'kind'"):
        study_data.load_study_data(settings.model_copy(update={"behaviors": twice}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a/b"}, "name: use letters, digits, dots, dashes and underscores, .* got 'a/b'"),
        ({"multipliers": [0]}, "multipliers: give finite numbers, at least one of which is not 0"),
        ({"multipliers": [1, 1]}, "multipliers: give each multiplier once"),
        ({"multipliers": [float("nan")]}, "multipliers: give finite numbers"),
        ({"layers": [-1]}, "layers: give layers from 0 on"),
        ({"layers": []}, "layers: give layers from 0 on, at least one"),
        ({"behaviors": []}, "behaviors: give at least one behaviour, each once"),
        ({"behaviors": ["x", "x"]}, "behaviors: give at least one behaviour, each once"),
        ({"base_model": "organism-chat"}, "base_model: give another model than `model`"),
        ({"n_nulls": 0}, "n_nulls: should be greater than or equal to 1, got 0"),
        ({"dev_fraction": 0.5}, "dev_fraction: should be less than 0.5, got 0.5"),
        ({"dtype": "float8"}, "dtype: should be 'float32', 'float16' or 'bfloat16', got 'float8'"),
        ({"prompt_format": "json"}, "prompt_format: should be 'chat', 'llama2', 'base' or 'plain', got 'json'"),
        ({"sed": 1}, "sed: there is no such setting; there are name, model, "),
        ({"seed": -1, "max_pairs": 1}, "seed: .*; max_pairs: "),
    ],
)
def test_settings_are_checked_in_plain_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        study_settings({"behaviors": ["sycophancy"]} | values)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_settings_survive_their_file(settings: StudySettings, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(settings.to_json())
    assert read_settings(file) == settings and read_settings(file).hash == settings.hash
    assert settings.model_copy(update={"seed": 1}).hash != settings.hash


def test_settings_files_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    with pytest.raises(FileNotFoundError, match="there is no settings file"):
        read_settings(file)
    for text, message in (("{", "is not JSON"), ("[1]", "must hold a JSON object"), ('{"seed": -1}', "json: seed: ")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_settings(file)


def test_multipliers_are_sorted_and_zero_is_among_them() -> None:
    made = study_settings({"behaviors": ["x"], "multipliers": [3, -0.0, -2]})
    assert made.multipliers == (-2.0, 0.0, 3.0) and made.shown == (-2.0, 0.0, 3.0)
    assert study_settings({"behaviors": ["x"], "multipliers": [-2, -1, 1, 2], "read": "-2"}).shown == (-1.0, 0.0, 1.0)


def row(**changed: Any) -> dict[str, Any]:
    values = {"multiplier": 1.0, "balanced_low": 0.1, "balanced_high": 0.2, "n_random": 50, "beats_random": 1.0}
    return values | changed


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (row(), "steers"),
        (row(n_random=0, beats_random=float("nan")), "without a null"),
        (row(balanced_low=-0.1), "no clear effect"),
        (row(beats_random=0.9), "like a null vector"),
        (row(n_shuffled=50, beats_shuffled=0.9), "like a null vector"),
        (row(n_shuffled=50, beats_shuffled=1.0), "steers"),
        (row(multiplier=-1.0, balanced_low=-0.2, balanced_high=-0.1), "steers"),
        (row(multiplier=-1.0, beats_random=0.0), "steers the wrong way"),
        (row(multiplier=-1.0, beats_random=0.2), "like a null vector"),
        (row(balanced_low=-0.2, balanced_high=-0.1, beats_random=0.0), "steers the wrong way"),
    ],
)
def test_verdicts(values: dict[str, Any], expected: str) -> None:
    assert findings.verdict_of(values) == expected and expected in findings.VERDICTS


def test_numbers_are_short_and_signed() -> None:
    assert [findings.signed(value) for value in (0.123, -0.5, 0.001, 1.0, float("nan"))] == [
        "+.12",
        "-.50",
        "0",
        "+1.00",
        "-",
    ]
    assert [findings.short(value) for value in (0.123, 1.0, 0.0, float("nan"))] == [".12", "1.00", ".00", "-"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_folder.write_whole(file, fail)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_tables_come_back_bit_for_bit(tmp_path: Path) -> None:
    frame = pd.DataFrame({"behavior": ["nan", "None"], "value": [0.1 + 0.2, float("nan")]})
    pd.testing.assert_frame_equal(run_folder.table(tmp_path / "t.csv", lambda: frame), frame)
