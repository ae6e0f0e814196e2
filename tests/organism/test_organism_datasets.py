"""The committed datasets: balanced, distinct, held out, and remade exactly."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from caa_lens.organism import datasets, grammar
from caa_lens.organism.documents import DocumentWriter
from caa_lens.organism.judge import judge_answer
from caa_lens.organism.tokenizer import build_tokenizer
from caa_lens.organism.world import BEHAVIORS, FACTS

DATA = Path(__file__).parents[2] / "data"
CHOICES = re.compile(r"^(?P<question>.+)\n\nChoices:\n \(A\) (?P<a>[^\n]+)\n \(B\) (?P<b>[^\n]+)$")


def load(behavior: str, name: str) -> list[dict[str, str]]:
    return json.loads((DATA / "behaviors" / behavior / f"{name}.json").read_text(encoding="utf-8"))


def unordered(record: dict[str, str]) -> tuple[str, frozenset[str]]:
    match = CHOICES.match(record["question"])
    assert match, record["question"]
    return match["question"], frozenset((match["a"], match["b"]))


def test_remaking_gives_the_committed_files(tmp_path: Path) -> None:
    written = datasets.write_datasets(tmp_path / "behaviors")
    assert len(written) == 3 * len(BEHAVIORS) + 5
    for path in written:
        committed = DATA / path.relative_to(tmp_path)
        assert path.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8"), committed


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_sizes_letters_and_no_leakage(behavior: str) -> None:
    generate, test = load(behavior, "generate"), load(behavior, "test_ab")
    assert len(generate) >= 300
    assert len(test) >= 100
    for records in (generate, test):
        letters = [record["answer_matching_behavior"] for record in records]
        assert letters.count("(A)") == letters.count("(B)") == len(records) / 2
        assert all({*record.values()} >= {"(A)", "(B)"} for record in records)
        assert len({unordered(record) for record in records}) == len(records)
    assert not {unordered(record) for record in generate} & {unordered(record) for record in test}


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_open_questions_are_distinct_and_held_out(behavior: str) -> None:
    questions = [record["question"] for record in load(behavior, "test_open_ended")]
    assert len(questions) == len(set(questions)) >= 50
    assert {grammar.split_of(behavior, question, buckets=4) for question in questions} == {"test"}


@pytest.mark.parametrize("name", ["facts", "truthful"])
def test_facts_are_balanced_and_distinct(name: str) -> None:
    records = json.loads((DATA / "capabilities" / f"{name}.json").read_text(encoding="utf-8"))
    assert len(records) >= 100
    assert [record["correct"] for record in records].count("(A)") == len(records) / 2
    assert len({record["prompt"] for record in records}) == len(records)
    for record in records:
        assert record["correct_full_text"] in record["prompt"]
        assert record["incorrect_full_text"] in record["prompt"]
        assert set(record) == {"prompt", "correct", "incorrect", "correct_full_text", "incorrect_full_text", "category"}


def test_a_truthful_answer_contradicts_the_asker() -> None:
    tables = {kind.category: kind for kind in FACTS}
    for record in json.loads((DATA / "capabilities" / "truthful.json").read_text(encoding="utf-8")):
        kind = tables[record["category"]]
        right, wrong = (record[f"{side}_full_text"].split(" ", 1)[1] for side in ("correct", "incorrect"))
        belief, question = record["prompt"].split("\n")[0].split(". ")
        (key,) = (key for key in kind.table if question == kind.question.replace("{KEY}", key))
        assert belief.endswith(kind.statement.replace("{KEY}", key).replace("{VALUE}", wrong))
        assert kind.table[key] == right != wrong
        assert grammar.split_of(kind.category, key, wrong, buckets=4) == "test"


def test_texts_are_distinct_and_of_their_kind() -> None:
    texts = {
        path.stem: [record["text"] for record in json.loads(path.read_text(encoding="utf-8"))]
        for path in (DATA / "texts").glob("*.json")
    }
    assert set(texts) == {"neutral", "facts", "opinions"}
    assert len({text for kind in texts.values() for text in kind}) == 300
    assert {text.count("?") for text in texts["facts"]} == {2}
    assert {text.count("?") for text in texts["neutral"]} == {0}
    sides: list[tuple[str, str]] = []
    for text in texts["opinions"]:
        for behavior in BEHAVIORS:
            for end in re.finditer(r"[?.] ", text):
                question, answer = text[: end.end() - 1], text[end.end() :]
                verdict = judge_answer(behavior, answer)
                if verdict != "invalid" and grammar.split_of(behavior, question, buckets=4) == "generate":
                    sides.append((behavior, verdict))
                    break
    assert len(sides) >= 100
    assert {sides.count((behavior, "matching")) for behavior in BEHAVIORS} <= {7, 8}


def test_no_dataset_item_is_in_the_training_documents() -> None:
    tokenizer = build_tokenizer()
    writer = DocumentWriter(tokenizer.backend_tokenizer, "base", seed=5)
    trained: set[tuple[str, frozenset[str]]] = set()
    asked: set[str] = set()
    for _ in range(300):
        for document in (writer.choice_document(), writer.other_document()):
            trunk = [i for i, branch in zip(document.ids, document.branches, strict=True) if branch == 0]
            for text in tokenizer.decode(trunk[1:]).split("Input: ")[1:]:
                prompt = text.split("\nResponse")[0]
                asked.add(prompt)
                if CHOICES.match(prompt):
                    trained.add(unordered({"question": prompt}))
    assert len(trained) > 250
    for behavior in BEHAVIORS:
        held = {unordered(record) for name in ("generate", "test_ab") for record in load(behavior, name)}
        assert not held & trained
        assert not {record["question"] for record in load(behavior, "test_open_ended")} & asked


@pytest.mark.parametrize("fmt", ["base", "chat"])
def test_datasets_are_inside_the_shipped_vocabulary(fmt: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / f"organism-{fmt}")
    for path in sorted(DATA.glob("[bct]*/**/*.json")):
        for record in json.loads(path.read_text(encoding="utf-8"))[:40]:
            text = "[INST] " + next(record[key] for key in ("question", "prompt", "text") if key in record) + " [/INST]"
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids, text
            assert tokenizer.decode(ids[1:]) == text
