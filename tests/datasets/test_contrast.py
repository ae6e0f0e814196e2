"""Contrast pairs: what is read, what is refused and in which words, and the laws of splitting."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caa_lens.datasets import contrast
from caa_lens.datasets.contrast import ContrastDataset, ContrastPair, behaviors, load_contrast_pairs, load_questions

MATCHING, OTHER = "answer_matching_behavior", "answer_not_matching_behavior"
quick = settings(max_examples=40, deadline=None)

texts = st.text(min_size=1).filter(str.strip)
pairs_of_text = st.builds(ContrastPair, texts, texts, texts).filter(lambda p: p.positive != p.negative)
lettered = st.builds(
    lambda prompt, a_matches: ContrastPair(prompt, *(("(A)", "(B)") if a_matches else ("(B)", "(A)"))),
    st.sampled_from([f"question {i}" for i in range(20)]),
    st.booleans(),
)


def item(question="Is it? (A) Yes (B) No", matching="(A)", other="(B)") -> dict[str, str]:
    return {"question": question, MATCHING: matching, OTHER: other}


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def numbered(n_a: int, n_b: int) -> ContrastDataset:
    return ContrastDataset.from_pairs(
        [(f"q{i}", "(A)", "(B)") if i < n_a else (f"q{i}", "(B)", "(A)") for i in range(n_a + n_b)]
    )


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turns off the tests' type checks, to see what a user sees, who has none."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@quick
@given(pairs_of_text)
def test_swapping_twice_changes_nothing(pair):
    assert pair.swapped().swapped() == pair
    assert (pair.swapped().positive, pair.swapped().prompt) == (pair.negative, pair.prompt)


@pytest.mark.parametrize(
    ("positive", "letter"),
    [("(A)", "A"), (" (B) ", "B"), ("(E)", "E"), ("A", None), ("(a)", None), ("(A) Yes", None), ("Yes", None)],
)
def test_letter(positive, letter):
    assert ContrastPair("p", positive, "x").letter == letter


@quick
@given(st.lists(lettered, min_size=1, max_size=60), st.integers(0, 9))
def test_a_split_is_a_partition_by_prompt(pairs, seed):
    dataset = ContrastDataset.from_pairs(pairs)
    if len({pair.prompt for pair in pairs}) < 3:
        with pytest.raises(ValueError, match="at least 3 different prompts"):
            dataset.split(seed)
        return
    parts = dataset.split(seed)
    assert Counter(pair for part in parts for pair in part) == Counter(pairs)
    assert all(len(part) > 0 for part in parts)
    prompts = [{pair.prompt for pair in part} for part in parts]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
    assert dataset.split(seed) == parts


@quick
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 99))
def test_a_split_shares_out_each_letter(n_a, n_b, seed):
    if n_a + n_b < 3:
        return
    for part, fraction in zip(numbered(n_a, n_b).split(seed), (0.6, 0.2, 0.2), strict=True):
        for letter, n in (("A", n_a), ("B", n_b)):
            assert abs(part.letter_balance().get(letter, 0) - fraction * n) <= 2


def test_a_split_has_names_seed_and_order():
    dataset = numbered(30, 20)
    train, dev, test = dataset.split(seed=3)
    assert [part.name for part in (train, dev, test)] == ["custom/train", "custom/dev", "custom/test"]
    assert [len(part) for part in (train, dev, test)] == [30, 10, 10]
    assert "train split (0.6, 0.2, 0.2), seed 3" in train.origin
    order = [dataset.pairs.index(pair) for pair in train]
    assert order == sorted(order)
    assert train.hash != dataset.split(seed=4)[0].hash
    assert [len(part) for part in dataset.split(fractions=(0.5, 0.3, 0.2))] == [25, 15, 10]


def test_pairs_without_a_prompt_can_be_split():
    rows = [("", f"a girl {i}", f"a boy {i}") for i in range(10)]
    parts = ContrastDataset.from_pairs(rows, allow_empty_prompt=True).split()
    assert [len(part) for part in parts] == [6, 2, 2]


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.0), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_are_checked(fractions):
    with pytest.raises(ValueError, match="three positive numbers that sum to 1, got "):
        numbered(5, 5).split(fractions=fractions)


@quick
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_balanced_has_as_many_of_each(n_a, n_b, seed):
    if n_a + n_b == 0:
        return
    dataset = numbered(n_a, n_b)
    if not n_a or not n_b:
        with pytest.raises(ValueError, match=rf"no pair has \({'B' if n_a else 'A'}\) as its matching answer"):
            dataset.balanced()
        return
    balanced = dataset.balanced(seed)
    assert balanced.letter_balance() == {"A": min(n_a, n_b), "B": min(n_a, n_b)}
    assert set(balanced) <= set(dataset)
    assert balanced == dataset.balanced(seed)


@quick
@given(st.lists(pairs_of_text, min_size=1, max_size=8))
def test_a_json_file_gives_back_the_pairs(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp() / "pairs" / "mine.json"
    pairs = [ContrastPair(p.prompt, p.positive.strip() + "+", p.negative.strip() + "-") for p in pairs]
    dataset = ContrastDataset.from_pairs(pairs)
    dataset.to_json(path)
    back = load_contrast_pairs(path, other_answers="keep")
    assert (back.name, back.pairs, back.hash) == ("mine", dataset.pairs, dataset.hash)
    assert [file.name for file in path.parent.iterdir()] == ["mine.json"]


def test_hash_is_of_the_pairs_in_order():
    pairs = numbered(2, 1)
    assert len(pairs.hash) == 64
    assert pairs.hash == ContrastDataset.from_pairs(pairs.pairs, name="other").hash
    assert pairs.hash != ContrastDataset.from_pairs(pairs.pairs[::-1]).hash
    assert pairs.hash != ContrastDataset.from_pairs([pair.swapped() for pair in pairs]).hash


def test_a_dataset_is_a_sequence():
    dataset = numbered(3, 2)
    assert dataset[0] == ContrastPair("q0", "(A)", "(B)") and dataset[-1].prompt == "q4"
    assert isinstance(dataset[1:3], ContrastDataset) and [pair.prompt for pair in dataset[1:3]] == ["q1", "q2"]
    assert dataset[:2].letter_balance() == {"A": 2} and dataset[:2].report.n_read == 2
    assert dataset[3] in dataset and list(reversed(dataset))[0] == dataset[4]
    assert repr(dataset) == "ContrastDataset('custom', 5 pairs, A 3, B 2)"


def test_json_jsonl_and_csv_say_the_same(tmp_path: Path):
    rows = [item('What,\n"this"? \u2028 (A) (B)'), item("Why?", " (B)", " (A) ")]
    write(tmp_path / "a.json", "\ufeff" + json.dumps(rows))
    write(tmp_path / "a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["note", *rows[0]])
        writer.writeheader()
        writer.writerows(row | {"note": "x"} for row in rows)
    loaded = [load_contrast_pairs(tmp_path / f"a.{suffix}") for suffix in ("json", "jsonl", "csv")]
    assert loaded[0].pairs == loaded[1].pairs == loaded[2].pairs
    assert loaded[0][1] == ContrastPair("Why?", "(B)", "(A)")
    assert loaded[0].report == loaded[2].report and loaded[0].report.n_stripped == 2
    assert loaded[0].origin == str(tmp_path / "a.json")


def test_free_text_answers_keep_their_spaces(tmp_path: Path):
    write(tmp_path / "who.json", json.dumps([item("Then", " She", " He")]))
    loaded = load_contrast_pairs(tmp_path / "who.json", other_answers="keep")
    assert loaded[0] == ContrastPair("Then", " She", " He") and loaded.report.n_stripped == 0


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sycophancy/generate_dataset.json", "sycophancy"),
        ("sycophancy/generate.json", "sycophancy"),
        ("refusal/test_dataset_ab.json", "refusal"),
        ("refusal/mine.json", "mine"),
        ("refusal/generated_by_me.json", "generated_by_me"),
    ],
)
def test_the_name_comes_from_the_folder_or_the_file(tmp_path: Path, file, name):
    assert load_contrast_pairs(str(write(tmp_path / file, [item()]))).name == name


def test_answers_outside_a_and_b(tmp_path: Path):
    rows = [item("q0"), item("q1", " (C)"), item("q2", "(B)", "(D)"), item("q0")]
    path = write(tmp_path / "a.json", rows)
    message = (
        r"a.json: 2 problems in 4 items: item 1, field answer_matching_behavior: got ' \(C\)', allowed \(A\) or \(B\); "
        r"item 2, field answer_not_matching_behavior: got '\(D\)', allowed \(A\) or \(B\) "
        r"\(pass other_answers='drop' or 'keep'\)$"
    )
    with pytest.raises(ValueError, match=message):
        load_contrast_pairs(path)
    kept, dropped = (load_contrast_pairs(path, other_answers=how) for how in ("keep", "drop"))
    assert [pair.prompt for pair in kept] == ["q0", "q1", "q2", "q0"]
    assert kept.report.summary() == (
        "4 read, 4 kept; 2 with answers outside (A) and (B), kept; 1 answers had spaces around them; "
        "1 duplicates, kept; matching letter: A 2, B 1, C 1"
    )
    assert [pair.prompt for pair in dropped] == ["q0", "q0"]
    assert dropped.report.summary() == (
        "4 read, 2 kept; 2 with answers outside (A) and (B), dropped; 1 answers had spaces around them; "
        "1 duplicates, kept; matching letter: A 2"
    )
    with pytest.raises(ValueError, match=r"no pairs are left: all 1 have answers outside \(A\) and \(B\)"):
        load_contrast_pairs(write(tmp_path / "b.json", [item(matching="Yes")]), other_answers="drop")
    assert load_contrast_pairs(tmp_path / "b.json", other_answers="keep").letter_balance() == {"other": 1}


def test_all_problems_come_in_one_error_and_the_worst_first(tmp_path: Path):
    rows = [item(), item(matching="(C)"), {"question": "q"}, item(question=3), item("  "), item(other=""), [1]]
    with pytest.raises(ValueError) as raised:
        load_contrast_pairs(write(tmp_path / "a.json", [*rows, item(other=" (A)")]))
    message = str(raised.value)
    assert "\n" not in message
    assert "a.json: 8 problems in 8 items: item 2, field answer_matching_behavior: missing (there are: que" in message
    assert "item 3, field question: got 3 (int), must be a string" in message
    assert "item 4, field question: empty" in message
    assert "item 5, field answer_not_matching_behavior: empty" in message
    assert message.endswith("; and 3 more (pass other_answers='drop' or 'keep')")
    with pytest.raises(ValueError, match=r"item 0: got \[1\] \(list\), must have the fields question, answer_match"):
        load_contrast_pairs(write(tmp_path / "b.json", [[1]]))
    with pytest.raises(ValueError, match=r"got '\(A\)', the same as answer_matching_behavior$"):
        load_contrast_pairs(write(tmp_path / "b.json", [item(other=" (A)")]))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", "", "a.json is empty"),
        ("a.json", " \n", "a.json is empty"),
        ("a.json", "[]", "a.json holds no items"),
        ("a.csv", "question,answer\n", "a.csv holds no items"),
        ("a.json", '{"question": 1}', r"must hold a list of items, got \{'question': 1\} \(dict\)"),
        ("a.json", '[\n{"question": }]', "a.json is not JSON: Expecting value at line 2, column 14"),
        ("a.jsonl", '{"question": "q"}\n{"question"\n', "a.jsonl is not JSON: Expecting ':' delimiter at line 2"),
        ("a.csv", 'question\n"open', "a.csv is not CSV: unexpected end of data"),
        ("a.csv", "question\nwhy\n", "field answer_matching_behavior: missing"),
        ("a.txt", "hello", "unknown suffix '.txt', allowed .json, .jsonl, .csv"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, file, content, message):
    with pytest.raises(ValueError, match=message):
        load_contrast_pairs(write(tmp_path / file, content))


def test_paths_that_are_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing.json"):
        load_contrast_pairs(tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="is a folder: give one of the files in it"):
        load_contrast_pairs(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'["\xff"]')
    with pytest.raises(ValueError, match="latin.json is not UTF-8 text"):
        load_contrast_pairs(tmp_path / "latin.json")


def test_pairs_given_in_python_are_checked_and_kept_as_they_are():
    stories = ContrastDataset.from_pairs([("Once", " She", " He")], name="stories")
    assert stories[0] == ContrastPair("Once", " She", " He")
    assert stories.letter_balance() == {"other": 1} and stories.report.n_other_answers == 1
    assert ContrastDataset.from_pairs([("q", " (A)", "(B) ")])[0] == ContrastPair("q", "(A)", "(B)")
    with pytest.raises(ValueError, match=r"item 0, field positive: got ' She', allowed \(A\) or \(B\)"):
        ContrastDataset.from_pairs(stories.pairs, other_answers="error")
    with pytest.raises(ValueError, match="stories .*: 1 problem in 1 items: item 0, field prompt: empty$"):
        ContrastDataset.from_pairs([("", "a", "b")], name="stories")
    assert ContrastDataset.from_pairs([("", "a", "b")], allow_empty_prompt=True)[0].prompt == ""
    with pytest.raises(ValueError, match="'custom': no pairs were given"):
        ContrastDataset.from_pairs([])


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    for name in ("politeness", "shouting"):
        write(folder / "behaviors" / name / "generate.json", [item("train?")])
        write(folder / "behaviors" / name / "test_ab.json", [item("test?")])
        write(folder / "behaviors" / name / "test_open_ended.json", [{"question": "How are you?"}])
    monkeypatch.setattr(contrast, "data_dir", lambda: folder)
    return folder


def test_bundled_behaviours_are_loaded_by_name(bundled: Path):
    assert behaviors() == ("politeness", "shouting")
    pairs = load_contrast_pairs("politeness")
    assert (pairs.name, pairs[0].prompt) == ("politeness", "train?")
    assert pairs.origin == "bundled with caa_lens: politeness/generate.json"
    assert load_contrast_pairs("politeness", "test_ab")[0].prompt == "test?"
    assert load_questions("shouting") == ("How are you?",)


def test_an_unknown_name_gets_the_closest(bundled: Path):
    message = (
        r"'politness' is not a bundled behaviour \(these are: politeness, shouting\); did you mean 'politeness'\? "
        r"a path to a .json, .jsonl or .csv file is also allowed"
    )
    with pytest.raises(ValueError, match=message):
        load_contrast_pairs("politness")
    with pytest.raises(ValueError, match=r"shouting\); a path"):
        load_questions("zebra")


def test_questions_are_checked(tmp_path: Path):
    assert load_questions(write(tmp_path / "q.json", [{"question": "Why?"}, {"question": "How?"}])) == ("Why?", "How?")
    with pytest.raises(ValueError, match="q.json: 2 problems in 3 items: item 1, field question: empty; item 2, field"):
        load_questions(write(tmp_path / "q.json", [{"question": "Why?"}, {"question": ""}, {"prompt": "x"}]))


def test_choices_are_checked(unchecked, tmp_path: Path):
    path = write(tmp_path / "a.json", [item()])
    with pytest.raises(ValueError, match="part must be one of generate, test_ab, got 'train'"):
        load_contrast_pairs(path, "train")
    with pytest.raises(ValueError, match="other_answers must be one of error, keep, drop, got 'ignore'"):
        load_contrast_pairs(path, other_answers="ignore")


PUBLISHED = {  # behaviour: items to generate from, matching A, matching B, outside A and B; then the same for the test
    "coordinate-other-ais": (360, 179, 181, 0, 50, 26, 24, 0),
    "corrigible-neutral-HHH": (290, 148, 142, 0, 50, 22, 28, 0),
    "hallucination": (1000, 504, 496, 0, 50, 23, 27, 0),
    "myopic-reward": (950, 474, 476, 0, 50, 26, 24, 0),
    "refusal": (408, 192, 216, 0, 50, 23, 27, 0),
    "survival-instinct": (903, 558, 257, 88, 50, 32, 14, 4),
    "sycophancy": (1000, 489, 511, 0, 50, 28, 22, 0),
}


@pytest.mark.parametrize("behavior", PUBLISHED)
def test_the_published_pairs(shared_data: Path, behavior):
    folder = shared_data / "data" / "caa" / "datasets"
    counts = PUBLISHED[behavior]
    for (n, a, b, other), file in (
        (counts[:4], folder / "generate" / behavior / "generate_dataset.json"),
        (counts[4:], folder / "test" / behavior / "test_dataset_ab.json"),
    ):
        kept, dropped = (load_contrast_pairs(file, other_answers=how) for how in ("keep", "drop"))
        assert kept.name == behavior
        assert (len(kept), len(dropped)) == (n, n - other)
        assert dropped.letter_balance() == {"A": a, "B": b}
        assert (kept.report.n_other_answers, dropped.report.n_duplicates, kept.report.n_stripped) == (other, 0, 0)
        assert kept.report.summary().startswith(f"{n} read, {n} kept")
        assert (f"{other} with answers outside" in dropped.report.summary()) == bool(other)
        train, dev, test = dropped.split()
        assert len(train) + len(dev) + len(test) == n - other
        assert abs(train.letter_balance()["A"] / len(train) - a / (n - other)) < 0.02
        if other:
            with pytest.raises(ValueError, match=rf"{other} problems in {n} items: item \d+, field .* got '\([C-H]\)'"):
                load_contrast_pairs(file)
        else:
            assert load_contrast_pairs(file) == kept
    assert len(load_questions(folder / "test" / behavior / "test_dataset_open_ended.json")) >= 50
