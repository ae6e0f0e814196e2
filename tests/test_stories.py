"""The known effect on a real trained model: girl-minus-boy moves " She" against " He", and random vectors do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import stories

import caa_lens as caa
from caa_lens.studies.run import run_study
from caa_lens.studies.settings import StudySettings

MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def test_girl_minus_boy_moves_the_pronoun(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"needs the model in {folder}")
    model = caa.load_model(folder)
    vectors = caa.extract_vectors(model, stories.pairs(), read="answer_end", prompt_format="plain")
    frame = caa.sweep(
        model, vectors, stories.items(), multipliers=MULTIPLIERS, n_nulls=40, seed=0, prompt_format="plain"
    )
    frame["odds"] = frame["logp_matching"] - frame["logp_other"]
    odds = frame.pivot_table(index=["layer", "draw"], columns="multiplier", values="odds").sort_index()
    for layer in (1, 2, 3, 4):
        own = odds.loc[(layer, -1)]
        assert own.is_monotonic_increasing and own.is_unique, f"layer {layer}: {own.round(2).tolist()}"
        null = odds.loc[layer].drop(-1)
        assert len(null) == 40
        # At layer 1 these stories' vector moves the odds by 1.9 between -2 and +2, and the furthest of 40 random ones
        # by 1.7 to 2.2 over three seeds: beyond nearly all of them, not beyond every one.
        beaten = (null[2.0] - null[-2.0] < own[2.0] - own[-2.0]).mean()
        assert beaten >= (1.0 if layer > 1 else 0.95), f"layer {layer} beats {beaten:.0%} of the random vectors"
        if layer > 1:
            assert (null[1.0] < own[1.0]).all() and (null[-1.0] > own[-1.0]).all(), f"layer {layer} at +1 and -1"
    null, own = odds.loc[0].drop(-1), odds.loc[(0, -1)]
    assert null[1.0].max() > own[1.0], "layer 0 is known to be no better than random"


def test_the_whole_study_runs_on_it(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"needs the model in {folder}")
    files = stories.write(tmp_path / "girl-boy")
    settings = StudySettings(
        name="stories",
        model=str(folder),
        base_model=None,
        behaviors=(str(tmp_path / "girl-boy"),),
        dev={"girl-boy": str(files["dev"])},
        other_answers="keep",
        read="answer_end",
        prompt_format="plain",
        n_nulls=40,
        baselines=(),
        texts=None,
        n_questions=0,
    )
    result = run_study(settings, tmp_path / "run", progress=False)
    summary = result.tables["summary"].set_index("multiplier")
    assert result.layers["girl-boy"] in (1, 2, 3, 4)
    assert summary.loc[1.0, "effect_low"] > 0 > summary.loc[-1.0, "effect_high"]
    assert summary.loc[1.0, "beats_random"] == summary.loc[-1.0, "beats_random"] == 1.0
    assert (tmp_path / "run" / "index.html").is_file()
