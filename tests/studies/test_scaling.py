"""Two finished studies beside each other, and the bundled settings of the study of refusal in Llama 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import caa_lens as caa
import caa_lens.cli.options as options
from caa_lens.cli import app as cli
from caa_lens.studies import report as study_report
from caa_lens.studies.data import load_study_data
from caa_lens.studies.run import read_study, run_study
from caa_lens.studies.scaling import by_depth, parameters_in
from caa_lens.studies.settings import StudySettings, bundled_studies, read_settings
from caa_lens.viz import figures

SMALL: Any = {"base_model": None, "baselines": (), "texts": None, "n_questions": 0, "n_nulls": 2}
SIDES = [f"{side}{end}" for side in ("positive", "negative") for end in ("", "_low", "_high")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_path: Callable[[str], Path]) -> dict[str, Path]:
    """A study of the bundled model, of a tiny one, and of two layers of the bundled one."""
    root = tmp_path_factory.mktemp("runs")
    files = {name: str(root / f"{name}.json") for name in ("refusal", "sycophancy")}
    for name, file in files.items():
        caa.load_contrast_pairs(name)[:50].to_json(file)
    refusal = (files["refusal"],)
    asked: dict[str, dict[str, Any]] = {
        "chat": {"behaviors": refusal, "multipliers": (-2, -1, 1, 2)},
        "tiny": {"behaviors": tuple(files.values()), "multipliers": (-1, 1), "model": str(tiny_path("llama"))},
        "some": {"behaviors": refusal, "multipliers": (-1, 1), "layers": (1, 2)},
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study_report, "write_report", lambda result: None)  # nobody reads it here
        for name, more in asked.items():
            run_study(StudySettings(name=name, **SMALL | more), root / name, progress=False)
    return {name: root / name for name in asked}


def test_every_layer_of_every_run_has_its_row(runs: dict[str, Path]) -> None:
    table = by_depth([runs["chat"], runs["tiny"]])
    of = table.groupby(["model", "behavior"]).size()
    assert of.to_dict() == {("llama", "refusal"): 4, ("llama", "sycophancy"): 4, ("organism-chat", "refusal"): 5}
    chat = table[table["model"] == "organism-chat"]
    assert chat["layer"].tolist() == [0, 1, 2, 3, 4] and chat["n_layers"].eq(5).all()
    assert chat["depth"].tolist() == [0, 0.25, 0.5, 0.75, 1] and chat["n_parameters"].isna().all()
    assert table["multiplier"].eq(1).all() and chat["run"].eq(str(runs["chat"])).all()


def test_effects_are_the_studys_own(runs: dict[str, Path]) -> None:
    result = read_study(runs["chat"])
    dev, test = (result.tables[name].set_index(["layer", "multiplier"]) for name in ("dev_summary", "summary"))
    for multiplier in (1.0, 2.0):
        table = by_depth([runs["chat"]], multiplier=multiplier).set_index("layer")
        for layer, row in table.iterrows():
            for side, sign in (("positive", 1), ("negative", -1)):
                cell = dev.loc[(layer, sign * multiplier)]
                assert row[side] == cell["effect_balanced"] and row[f"{side}_high"] == cell["balanced_high"]
                assert row[f"{side}_low"] == cell["balanced_low"] and row["n_items"] == cell["n_items"]
        best = result.layers["refusal"]
        assert table.index[table["best"]].tolist() == [best]
        assert table.loc[best, "test_positive"] == test.loc[(best, multiplier), "effect_balanced"]
        assert table.loc[best, "test_negative_low"] == test.loc[(best, -multiplier), "balanced_low"]
        assert table.loc[best, "n_test"] == test.loc[(best, multiplier), "n_items"]
        others = table.drop(index=best)
        assert others[["test_positive", "test_negative", "n_test"]].isna().all().all()
    assert table.loc[best, "positive"] > 0.1 > -0.1 > table.loc[best, "negative"]


def test_where_letters_cannot_be_balanced_the_plain_effect_stands(runs: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(runs["chat"], copy)
    dev = pd.read_csv(copy / "dev_summary.csv")
    dev[["effect_balanced", "balanced_low", "balanced_high"]] = np.nan
    dev.to_csv(copy / "dev_summary.csv", index=False)
    table = by_depth([copy])
    expected = dev[dev["multiplier"] == 1].sort_values("layer")
    np.testing.assert_allclose(table["positive"], expected["effect"])
    np.testing.assert_allclose(table["positive_high"], expected["effect_high"])


def test_models_come_in_the_order_of_their_size(runs: dict[str, Path]) -> None:
    table = by_depth([runs["chat"], runs["tiny"]], n_parameters={"organism-chat": 2e6, "llama": 1e6})
    assert table["model"].unique().tolist() == ["llama", "organism-chat"]
    table = by_depth([runs["chat"], runs["tiny"]], n_parameters={"organism-chat": 2e6, "llama": 3e6})
    assert table["model"].unique().tolist() == ["organism-chat", "llama"]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", 13e9),
        ("Llama-2-70B", 70e9),
        ("Qwen2.5-0.5B-Instruct", 0.5e9),
        ("EleutherAI/pythia-70m", 70e6),
        ("stories260K", 260e3),
        ("Mixtral-8x7B", np.nan),
        ("gpt2-xl", np.nan),
        ("organism-chat", np.nan),
        ("7b-models/mine", np.nan),
        ("v2bis", np.nan),
    ],
)
def test_sizes_are_read_from_names(name: str, size: float) -> None:
    np.testing.assert_equal(parameters_in(name), size)


def test_a_run_of_some_layers_needs_the_models_depth(runs: dict[str, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"layers 1 to 2 of organism-chat, whose depth is not known: give n_layers={'org"
    ):
        by_depth([runs["some"]])
    table = by_depth([runs["some"]], n_layers={"organism-chat": 5})
    assert table["depth"].tolist() == [0.25, 0.5] and table["n_layers"].eq(5).all()
    with pytest.raises(ValueError, match="whose depth is 2: give n_layers"):
        by_depth([runs["some"]], n_layers={"organism-chat": 2})
    with pytest.raises(ValueError, match="n_parameters names chat, and the runs are of organism-chat"):
        by_depth([runs["chat"]], n_parameters={"chat": 1e6})


def test_what_cannot_be_compared_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run folders were given: give those of finished studies"):
        by_depth([])
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="give a size above 0; both directions are looked at"):
            by_depth([runs["chat"]], multiplier=wrong)
    with pytest.raises(ValueError, match="two runs are of refusal on organism-chat: give each once"):
        by_depth([runs["chat"], runs["some"]], n_layers={"organism-chat": 5})
    with pytest.raises(ValueError, match="swept the multipliers -1, 0, 1, not"):
        by_depth([runs["tiny"]], multiplier=2.0)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        by_depth([tmp_path / "none"])


# The figure and the command


def test_the_figure_holds_what_the_table_holds(runs: dict[str, Path]) -> None:
    table = by_depth([runs["chat"], runs["tiny"]])
    figure = figures.scaling(table)
    headings = [each.text for each in figure.layout.annotations[:4]]
    assert headings == ["refusal, +1", "refusal, -1", "sycophancy, +1", "sycophancy, -1"]
    assert len(figure.data) == 8 and [trace.showlegend for trace in figure.data].count(True) == 2
    chat = table[table["model"] == "organism-chat"]
    [trace] = [each for each in figure.data if each.name == "organism-chat" and each.showlegend]
    np.testing.assert_allclose(trace.x, chat["depth"])
    np.testing.assert_allclose(trace.y, chat["positive"])
    np.testing.assert_allclose(np.array(trace.y) + trace.error_y.array, chat["positive_high"])
    assert [size == 13 for size in trace.marker.size] == chat["best"].tolist()
    assert "layer 2 of 5, multiplier +1" in trace.hovertext[2]
    below = [each for each in figure.data if each.name == "organism-chat"][1]
    np.testing.assert_allclose(below.y, chat["negative"])
    assert "multiplier -1" in below.hovertext[0]
    with pytest.raises(
        ValueError, match=r"lacks the columns depth.*give what caa_lens.studies.scaling.by_depth returns"
    ):
        figures.scaling(table.drop(columns="depth"))


def run(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def test_the_command_shows_the_best_layers_and_saves_all(runs: dict[str, Path], tmp_path: Path) -> None:
    out, drawn = tmp_path / "d.parquet", tmp_path / "d.html"
    told = run("scaling", runs["chat"], runs["tiny"], "--out", out, "--figure", drawn).stdout
    table = by_depth([runs["chat"], runs["tiny"]])
    pd.testing.assert_frame_equal(pd.read_parquet(out), table)
    assert told.count("organism-chat") == 1 and told.count("llama") == 2 and drawn.stat().st_size > 1e6
    records = json.loads(run("scaling", runs["some"], "--n-layers", "organism-chat=5", "--json").stdout)
    assert [each["layer"] for each in records] == [1, 2]
    for wrong, message in (
        (("--out", "a.txt"), "cannot write a.txt"),
        (("--figure", "a.txt"), "cannot draw a.txt: give a name that ends in .html"),
        (("--n-layers", "32"), "--n-layers '32' cannot be read: give MODEL=N"),
    ):
        assert message in " ".join(run("scaling", runs["chat"], *wrong, code=1).stderr.split())


# The bundled settings


def test_the_bundled_studies_differ_in_the_model_alone() -> None:
    assert bundled_studies() == ("refusal-scaling-13b", "refusal-scaling-70b", "refusal-scaling-7b")
    read = {size: read_settings(f"refusal-scaling-{size}") for size in ("7b", "13b", "70b")}
    for size, settings in read.items():
        assert settings.name == f"refusal-scaling-{size}" and settings.model == f"meta-llama/Llama-2-{size}-chat-hf"
        assert settings.model_copy(update={"name": "", "model": ""}) == read["7b"].model_copy(
            update={"name": "", "model": ""}
        )
        assert parameters_in(settings.model) == float(size[:-1]) * 1e9
        assert settings.layers is None and {-1.0, 1.0} <= set(settings.multipliers)


def test_a_file_goes_before_a_bundled_name_and_neither_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("refusal-scaling-7b").write_text('{"name": "mine"}')
    assert read_settings("refusal-scaling-7b").name == "mine"
    with pytest.raises(FileNotFoundError, match="no settings file none, and no bundled one of that name: refusal-sc"):
        read_settings("none")


def test_their_data_is_caas_own(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shared_data / "data" / "caa").is_dir():
        pytest.skip("needs CAA's published data")
    (tmp_path / "CAA").symlink_to(shared_data / "data" / "caa")
    monkeypatch.chdir(tmp_path)
    data = load_study_data(read_settings("refusal-scaling-70b"))
    assert list(data) == ["refusal"] and len(data["refusal"].test) == 50
    assert len(data["refusal"].train) + len(data["refusal"].dev) == 408


def test_the_command_runs_a_bundled_study_as_far_as_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "quiet_libraries", lambda: None)
    monkeypatch.chdir(tmp_path)
    told = run("study", "--settings", "refusal-scaling-7b", code=1).stderr
    assert "there is no file CAA/datasets/generate/refusal/generate_dataset.json" in " ".join(told.split())
    assert list(tmp_path.iterdir()) == []
