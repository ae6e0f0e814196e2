"""Tasks of lm-evaluation-harness with a steered model: equal to lm_eval's own model class, and to slow steering."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command import error, run

import caa_lens as caa
from caa_lens.evaluation import harness
from caa_lens.evaluation.harness import evaluate, harness_model

pytest.importorskip("lm_eval", reason="needs lm_eval, the extra `evals`")


TASKS = Path(__file__).with_name("harness_task")
NAMES = ["organism_letters", "organism_words", "organism_answers", "organism_texts"]
SCORED = ["organism_letters", "organism_words", "organism_texts"]


@pytest.fixture(scope="module")
def organism() -> Any:
    return caa.load_model("organism-chat")


@pytest.fixture(scope="module")
def vectors(organism: Any) -> caa.SteeringVectors:
    return caa.extract_vectors(organism, caa.load_contrast_pairs("sycophancy")[:60], layers=[1, 2])


@pytest.fixture(scope="module")
def table(organism: Any, vectors: caa.SteeringVectors) -> pd.DataFrame:
    steer = {"strong": vectors[2] * 12.0, "nothing": vectors[2] * 0.0}
    return evaluate(organism, ["organism_choices", *NAMES[2:]], steer, include_path=TASKS)


def simply(lm: Any, tasks: list[str], *, num_fewshot: int = 0, chat: bool = False) -> Any:
    """lm_eval itself, with one of its models or one of ours."""
    from lm_eval.evaluator import evaluate as lm_eval_evaluate
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=str(TASKS), include_defaults=False).load(tasks)
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=num_fewshot)
        task.set_fewshot_seed(seed=0)
    return lm_eval_evaluate(lm, loaded, bootstrap_iters=100, apply_chat_template=chat, fewshot_as_multiturn=chat)


def hugging_face(model: Any, **settings: Any) -> Any:
    """lm_eval's own class around the same weights."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model.original_model, tokenizer=model.tokenizer, batch_size=3, device="cpu", **settings)


def responses(results: Any, task: str) -> list[Any]:
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["resps"] for sample in samples]


@pytest.mark.parametrize("chat", [False, True])
def test_unsteered_answers_equal_lm_evals_own(organism: Any, chat: bool) -> None:
    ours, theirs = harness_model(organism), hugging_face(organism)
    tasks = ["organism_letters", "organism_words"]
    one, two = (simply(lm, tasks, chat=chat, num_fewshot=1) for lm in (ours, theirs))
    for task in tasks:
        assert one["results"][task]["acc,none"] == two["results"][task]["acc,none"]
        for mine, other in zip(responses(one, task), responses(two, task), strict=True):
            for ((logp, greedy),), ((expected, likely),) in zip(mine, other, strict=True):
                assert logp == pytest.approx(expected, abs=1e-4) and greedy == likely


@pytest.mark.parametrize("chat", [False, True])
def test_unsteered_texts_equal_lm_evals_own(organism: Any, chat: bool) -> None:
    one, two = (simply(lm, ["organism_answers"], chat=chat) for lm in (harness_model(organism), hugging_face(organism)))
    assert responses(one, "organism_answers") == responses(two, "organism_answers")


def test_running_text_equals_lm_evals_own_with_one_bos(organism: Any) -> None:
    one, two = (
        simply(lm, ["organism_texts"]) for lm in (harness_model(organism), hugging_face(organism, add_bos_token=False))
    )
    np.testing.assert_allclose(responses(one, "organism_texts"), responses(two, "organism_texts"), atol=1e-3)


def test_too_long_a_context_is_cut_as_lm_eval_cuts_it(organism: Any) -> None:
    from lm_eval.api.instance import Instance

    context = "What is the capital of Cuba? Havana. " * 80
    request = Instance("loglikelihood", {}, (context, " Havana"), 0)
    ((logp, greedy),), ((expected, likely),) = (
        lm.loglikelihood([request]) for lm in (harness_model(organism), hugging_face(organism))
    )
    assert logp == pytest.approx(expected, abs=1e-4) and greedy == likely


def test_steered_answers_equal_a_slow_steered_model(organism: Any, vectors: caa.SteeringVectors) -> None:
    recipe = [vectors[1] * 2.0, vectors[2] * -3.0]
    results = simply(harness_model(organism, recipe), ["organism_words"])
    adapter, checked = organism.tokenizer, 0
    for sample in results["samples"]["organism_words"]:
        for (context, answer), ((logp, _),) in zip(sample["arguments"], sample["resps"], strict=True):
            tokens = adapter(context + answer, return_tensors="pt")["input_ids"]
            start = len(adapter(context)["input_ids"])
            with torch.no_grad(), caa.steer(organism, recipe, positions=start - 1):
                logits = organism(tokens)[0, start - 1 : -1].log_softmax(-1)
            assert logp == pytest.approx(float(logits.gather(1, tokens[0, start:, None]).sum()), abs=1e-3)
            checked += 1
    assert checked == 32


def test_the_table_stands_beside_the_unsteered_model(table: pd.DataFrame) -> None:
    keys = ["task", "metric", "filter"]
    assert table["vector"].unique().tolist() == ["unsteered", "strong", "nothing"]
    unsteered, strong, nothing = (table[table["vector"] == way].set_index(keys) for way in table["vector"].unique())
    assert set(unsteered.index.get_level_values("task")) == {*NAMES, "organism_choices"}
    np.testing.assert_array_equal(nothing["value"], unsteered["value"])
    assert (
        (unsteered["value_change"] == 0).all()
        and (nothing["value_change"] == 0).all()
        and (nothing["value_change_stderr"] == 0).all()
    )
    np.testing.assert_allclose(strong["value_change"], strong["value"] - unsteered["value"])
    assert (table[table["task"] != "organism_choices"]["n_documents"] == 16).all()
    assert (table[table["task"] == "organism_choices"]["n_documents"] == 32).all()
    perplexity = strong.loc[("organism_texts", "word_perplexity", "none")]
    assert perplexity["value_change"] > 3 * perplexity["value_change_stderr"] > 0, (
        "a vector twelve times its length does harm"
    )
    assert not perplexity["higher_is_better"] and strong.loc[("organism_words", "acc", "none"), "higher_is_better"]
    assert unsteered.loc[("organism_words", "acc", "none"), "value"] > 0.6, "the organism knows its world"
    group = [("organism_choices", "acc", "none")]
    parts = [("organism_letters", "acc", "none"), ("organism_words", "acc", "none")]
    assert strong.loc[group, "value"].iloc[0] == pytest.approx(strong.loc[parts, "value"].mean())


def test_questions_in_the_chat_template_are_answered(organism: Any) -> None:
    found = evaluate(organism, "organism_answers", include_path=TASKS, chat=True)
    assert found["filter"].tolist() == ["letter"] and found["value"].iloc[0] > 0.8, "the organism knows its world"


def test_standard_errors_are_lm_evals_own(organism: Any, table: pd.DataFrame) -> None:
    theirs = simply(harness_model(organism), SCORED)["results"]
    rows = table[table["vector"] == "unsteered"].set_index(["task", "metric"])
    for task in ("organism_letters", "organism_words"):
        assert rows.loc[(task, "acc"), "value"] == theirs[task]["acc,none"]
        assert rows.loc[(task, "acc"), "stderr"] == pytest.approx(theirs[task]["acc_stderr,none"])
    assert rows.loc[("organism_texts", "bits_per_byte"), "value"] == pytest.approx(
        theirs["organism_texts"]["bits_per_byte,none"]
    )


def test_a_change_is_as_sure_as_the_documents_agree() -> None:
    def measured(documents: list[Any], value: float) -> dict[str, Any]:
        return {"documents": documents, "value": value}

    def ratio(documents: list[tuple[float, float]]) -> float:
        return sum(a for a, _ in documents) / sum(b for _, b in documents)

    now, before = [1, 1, 0, 1, 0, 1], [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    own, paired = harness.standard_errors(measured(now, 4 / 6), measured(before, 4 / 6), None, 10, 0)
    assert own == pytest.approx(np.std(now, ddof=1) / 6**0.5)
    assert paired == pytest.approx(np.std([0, 1, 0, 0, -1, 0], ddof=1) / 6**0.5) != own
    pairs = [(3.0, 1.0), (1.0, 4.0), (2.0, 2.0), (9.0, 3.0)]
    doubled = [(2 * a, b) for a, b in pairs]
    own, paired = harness.standard_errors(measured(doubled, 3.0), measured(pairs, 1.5), ratio, 500, 0)
    alone, nothing = harness.standard_errors(measured(pairs, 1.5), measured(pairs, 1.5), ratio, 500, 0)
    assert own == pytest.approx(2 * alone) and paired == pytest.approx(alone) and nothing == 0 < alone
    assert np.isnan(harness.standard_errors(measured(doubled, 3.0), measured(pairs, 1.5), None, 500, 0)).all()
    assert np.isnan(harness.standard_errors(measured([1], 1.0), measured([1], 1.0), None, 500, 0)).all()


def test_a_limit_a_seed_and_examples_are_passed_on(organism: Any) -> None:
    once = evaluate(organism, "organism_letters", limit=5, num_fewshot=2, include_path=TASKS, seed=1)
    assert once["n_documents"].tolist() == [5] and once["vector"].tolist() == ["unsteered"]
    state = np.random.get_state()[1]
    again = evaluate(organism, ["organism_letters"], limit=5, num_fewshot=2, include_path=TASKS, seed=1, batch_size=1)
    pd.testing.assert_frame_equal(once, again)
    assert (np.random.get_state()[1] == state).all(), "the global generator is left as it was"  # pyright: ignore


def test_everywhere_is_another_way_of_steering(
    organism: Any, vectors: caa.SteeringVectors, table: pd.DataFrame
) -> None:
    everywhere = evaluate(organism, "organism_texts", vectors[2] * 12.0, include_path=TASKS, positions="all")
    assert everywhere["vector"].tolist() == ["unsteered"] * 2 + ["steered"] * 2
    rows = table[(table["vector"] == "strong") & (table["task"] == "organism_texts")]
    np.testing.assert_allclose(everywhere["value"][2:], rows["value"], rtol=1e-6)  # running text has no prompt to spare
    with pytest.raises(ValueError, match="positions='all' is for scoring answers, and organism_answers generates"):
        evaluate(organism, NAMES, vectors[2], include_path=TASKS, positions="all")


@pytest.mark.parametrize("kind", ["bridge", "hooked"])
def test_both_model_classes(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)("llama")
    vectors = caa.extract_vectors(model, caa.load_contrast_pairs("sycophancy")[:4], layers=[1])
    found = evaluate(model, NAMES, vectors[1] * 2.0, limit=2, include_path=TASKS, chat=True)
    assert found["vector"].tolist() == ["unsteered"] * 6 + ["steered"] * 6
    assert (found["value_change"] != 0).any() and found["value"].notna().all()


def test_errors_come_before_the_model_runs(
    organism: Any, vectors: caa.SteeringVectors, tiny_path: Callable[[str], Path], unchecked: None
) -> None:
    with pytest.raises(ValueError, match="no tasks were given: at least one is needed"):
        evaluate(organism, [], include_path=TASKS)
    with pytest.raises(ValueError, match="include_path 'nowhere': there is no such folder"):
        evaluate(organism, NAMES, include_path="nowhere")
    with pytest.raises(ValueError, match="a way of steering is named 'unsteered': it is always there"):
        evaluate(organism, NAMES, {"unsteered": vectors[2]}, include_path=TASKS)
    with pytest.raises(ValueError, match="positions 'begin' is not known: give 'prompt_end' or 'all'"):
        harness_model(organism, positions="begin")
    with pytest.raises(ValueError, match="the vector .* has d_model 128 and llama has 32"):
        evaluate(caa.load_model(tiny_path("llama")), NAMES, vectors[2], include_path=TASKS)
    with pytest.raises(ValueError, match="the tokenizer of gpt2 has no chat template: leave out chat=True"):
        evaluate(caa.load_model(tiny_path("gpt2")), NAMES, include_path=TASKS, chat=True)


def test_an_unknown_task_is_named_with_what_is_near() -> None:
    message = str(harness.unknown_task("organism_leters", NAMES))
    assert message.startswith("lm_eval has no task 'organism_leters': did you mean 'organism_letters'? tasks of your")
    assert "did you mean" not in str(harness.unknown_task("mmlu", NAMES))


def test_without_lm_eval_the_error_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from caa_lens.evaluation.harness import require_lm_eval\n"
        "try:\n    require_lm_eval()\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'lm_eval is not installed: pip install "caa_lens[evals]"\n'


def test_importing_it_does_not_import_lm_eval() -> None:
    code = "import sys, caa_lens.evaluation.harness; print('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_command_prints_and_saves(vectors: caa.SteeringVectors, tmp_path: Path) -> None:
    file, out = tmp_path / "v.safetensors", tmp_path / "table.csv"
    vectors.save(file)
    asked = ("--tasks", "organism_letters, organism_texts", "--include-path", TASKS)
    steered = ("--layer", "2", "--multipliers=-1,0,1", "--limit", "3", "--quiet")
    records = json.loads(run("harness", "organism-chat", file, *asked, *steered, "--json", "--out", out))
    assert [row["vector"] for row in records if row["metric"] == "acc"] == ["unsteered", "layer 2, -1", "layer 2, +1"]
    assert pd.read_csv(out)["value"].tolist() == pytest.approx([row["value"] for row in records])
    assert "organism_letters" in run("harness", "organism-chat", *asked, "--limit", "2", "--quiet")
    assert "For example:" in run("harness", "--help")


def test_the_command_fails_in_one_line(
    vectors: caa.SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ("harness", "organism-chat", "--tasks", "organism_letters")
    assert "a vector file and --layer go together" in error(*start, "--layer", "2")
    assert "cannot write x.json" in error(*start, "--out", "x.json")
    assert "there is no such folder" in error(*start, "--include-path", tmp_path / "none")

    def missing() -> None:
        raise ImportError("not here")

    monkeypatch.setattr(harness, "require_lm_eval", missing)
    assert error(*start) == "not here"
