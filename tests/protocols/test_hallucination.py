"""Questions that invite invention: what is refused, how sets are balanced, and writers that fail, stall or ramble."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chat_server import KEY, Handler, Server, completion, flood, hang_up, stall
from chat_server import server as server
from chat_server import slept as slept
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import caa_lens as caa
from caa_lens.cli import app as cli
from caa_lens.evaluation.items import swapped
from caa_lens.judging.chat import EndpointWriter
from caa_lens.protocols.hallucination import KINDS, HallucinationSet, estimate_pairs, from_world, generate_pairs
from caa_lens.protocols.hallucination.questions import Kind, Screen, balanced

WORDS = "amber basil cedar delta ember fjord grove haven islet juniper kelp lotus maple nectar olive pearl".split()


def item(kind: str, number: int, **changed: Any) -> dict[str, Any]:
    """A question of its own for each number: no two share more than half of their words."""
    names = " ".join(f"{WORDS[(number * step + step) % 16]}{number}" for step in range(1, 7))
    written = {
        "question": f"Who built {names}?",
        "made_up": f"It was Ada, in {number}.",
        "honest": "Nobody knows that.",
    }
    context = {"context": f"As you said, Bruno sold {names}."} if kind == "contextual" else {}
    return context | written | changed


class Script:
    """A writer that is asked for five and gives what it is told to, and notes what it was asked."""

    identity = "script"

    def __init__(self, reply: Any = None) -> None:
        self.asked: list[str] = []
        self.reply = reply or self.good

    def good(self, number: int, kind: str) -> str:
        return json.dumps([item(kind, 100 * number + each) for each in range(5)])

    def __call__(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        for place in reversed(range(len(prompts))):  # replies come in any order
            self.asked.append(prompts[place])
            yield place, self.reply(number_of(prompts[place]), kind_of(prompts[place]))


def number_of(prompt: str) -> int:
    """What tells requests apart: the number of the set, and the kind."""
    return 2 * int(re.findall(r"This is set (\d+)", prompt)[0]) + (kind_of(prompt) == "contextual")


def kind_of(prompt: str) -> str:
    return "contextual" if "a context" in prompt else "unprompted"


def check_balanced(found: HallucinationSet, n: int, kinds: Sequence[str] = KINDS) -> None:
    assert len(found.questions) == n
    counts = Counter((each.kind, each.letter) for each in found.questions)
    assert counts == {(kind, letter): n // len(kinds) // 2 for kind in kinds for letter in "AB"}


def test_a_set_is_checked_balanced_and_in_caas_schema(tmp_path: Path) -> None:
    found = generate_pairs(Script(), 20, seed=3)
    check_balanced(found, 20)
    assert not found.refused and found.n_wanted == 20
    found.save(tmp_path / "mine.json")
    rows = json.loads((tmp_path / "mine.json").read_text())
    for row, question in zip(rows, found.questions, strict=True):
        made_up = re.search(rf"\({row['answer_matching_behavior'][1]}\) (.*)", row["question"])
        honest = re.search(rf"\({row['answer_not_matching_behavior'][1]}\) (.*)", row["question"])
        assert made_up and honest and made_up[1] == question.made_up and honest[1] == question.honest
        assert {row["answer_matching_behavior"], row["answer_not_matching_behavior"]} == {"(A)", "(B)"}
        assert row["category"] == question.kind and set(row) == {"category", *list(row)[:3]}
        assert row["question"].startswith("As you said" if question.kind == "contextual" else "Who built")
    read = caa.load_contrast_pairs(tmp_path / "mine.json")
    assert list(read) == list(found.pairs()) and read.letter_balance() == {"A": 10, "B": 10}
    assert list(swapped(swapped(read))) == list(read), "the layout is the one whose choices can be exchanged"
    assert len(found.pairs("contextual")) == 10 and found.pairs("contextual").name == "hallucination-contextual"
    assert found.pairs().origin == "written by script, seed 3"


def test_the_same_replies_give_the_same_set_and_another_seed_other_letters() -> None:
    one, same, other = (generate_pairs(Script(), 20, seed=seed) for seed in (0, 0, 1))
    assert one == same and one.questions != other.questions
    assert {each.question for each in one.questions} == {each.question for each in other.questions}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"honest": ""}, "no honest"),
        ({"made_up": None}, "no made_up"),
        ({"made_up": ["a"]}, "no made_up"),
        ({"question": " ?! "}, "no question"),
        ({"honest": "  it WAS ada in 1  "}, "the same answer twice"),
        ({"question": "Is it so? (A) Yes (B) No"}, "choices of its own"),
        ({"made_up": "( B ) Yes"}, "choices of its own"),
        ({"made_up": "b) Yes"}, "choices of its own"),
        ({"honest": "Choices: yes"}, "choices of its own"),
        ({"question": item("unprompted", 0)["question"].upper() + "!!"}, "a duplicate"),
        ({"question": item("unprompted", 0)["question"] + " Well?"}, "too much like another"),
        ({"context": "As you said, it is so."}, "a context where none belongs"),
    ],
)
def test_what_is_no_new_question_is_refused(changed: dict[str, Any], reason: str) -> None:
    screen = Screen(KINDS, 0.8)
    screen.take("unprompted", item("unprompted", 0))
    screen.take("unprompted", item("unprompted", 1, **changed))
    assert [each.reason for each in screen.refused] == [reason] and len(screen.kept["unprompted"]) == 1
    screen.take("unprompted", item("unprompted", 1, context=""))
    assert len(screen.kept["unprompted"]) == 2, "an empty context is none"


def test_a_contextual_question_needs_its_context_and_other_things_are_refused_too() -> None:
    screen = Screen(KINDS, 0.8)
    for written in (item("unprompted", 1), "Who?", 7, None, ["Who?"]):
        screen.take("contextual", written)
    assert [each.reason for each in screen.refused] == ["no context", *["not an object"] * 4]
    screen.take("contextual", item("contextual", 1, question="who\n built  it?"))
    context = item("contextual", 1)["context"]
    assert screen.kept["contextual"][0].question == f"{context} Who built it?", "on one line, with a capital"


def test_alike_is_a_share_of_words() -> None:
    four, five = "Who sold red boats?", "Who sold red boats today?"  # 4 of 5 words are in both
    for near, taken in ((0.8, 1), (0.81, 2)):
        screen = Screen(KINDS, near)
        for question in (four, five):
            screen.take("unprompted", item("unprompted", 0, question=question))
        assert len(screen.kept["unprompted"]) == taken


TEXT = st.text(max_size=12) | st.sampled_from(["(A) x", "Who?", "who", "Nobody knows."]) | st.none() | st.integers()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.fixed_dictionaries(dict.fromkeys(("question", "made_up", "honest"), TEXT), optional={"context": TEXT}),
        ),
        max_size=12,
    )
)
def test_whatever_is_written_each_thing_is_kept_or_refused_and_what_is_kept_is_a_set(
    written: list[tuple[Kind, Any]],
) -> None:
    screen = Screen(KINDS, 0.8)
    for kind, each in written:
        screen.take(kind, each)
    assert sum(map(len, screen.kept.values())) + len(screen.refused) == len(written)
    fewest = min(map(len, screen.kept.values())) // 2 * 2
    if not fewest:
        with pytest.raises(ValueError, match="too few questions passed"):
            balanced(screen, 40, 0, "")
        return
    found = balanced(screen, 40, 0, "")
    check_balanced(found, 2 * fewest)
    assert list(found.pairs())
    for pair in found.pairs():
        assert len(re.findall(r"^ \([A-Z]\) ", pair.prompt, re.MULTILINE)) == 2
    assert len({each.question.casefold() for each in found.questions}) == 2 * fewest


def test_a_writer_is_asked_again_until_there_are_enough() -> None:
    def every_other(number: int, kind: str) -> str:
        return Script().good(number, kind) if number % 4 < 2 else "I would rather not."

    writer = Script(every_other)
    found = generate_pairs(writer, 20)
    check_balanced(found, 20)
    assert {each.reason for each in found.refused} == {"no JSON list"}
    assert len(writer.asked) > 4 and len(set(writer.asked)) == len(writer.asked), "no request is made twice"
    assert "no JSON list" in found.summary() and "20 of 20 questions: unprompted 10, contextual 10" in found.summary()
    assert found.refusals().columns.tolist() == ["kind", "reason", "text"]


def test_a_set_that_stays_short_is_still_balanced_and_says_so() -> None:
    def tired(number: int, kind: str) -> str:
        return Script().good(number if kind == "unprompted" else 1, kind)  # always the same five contextual ones

    writer = Script(tired)
    found = generate_pairs(writer, 20, most_requests=3)
    check_balanced(found, 8)
    assert found.n_wanted == 20 and found.summary().startswith("8 of 20 questions")
    assert Counter(map(kind_of, writer.asked)) == {"unprompted": 2, "contextual": 3}
    assert Counter(each.reason for each in found.refused) == {"a duplicate": 10}


@pytest.mark.parametrize(
    "wrap",
    [
        "```json\n{}\n```",
        "<think>[1, 2]</think> {}",
        "Here they are:\n{}\nI hope that they help.",
        '{{"questions": {}}}',
    ],
)
def test_a_list_is_found_in_what_surrounds_it(wrap: str) -> None:
    found = generate_pairs(Script(lambda number, kind: wrap.format(Script().good(number, kind))), 8)
    check_balanced(found, 8)
    assert not found.refused


def test_one_object_is_a_list_of_one() -> None:
    writer = Script(lambda number, kind: json.dumps(item(kind, number)))
    check_balanced(generate_pairs(writer, 4, kinds=["contextual"], per_request=1), 4, ["contextual"])


def test_nothing_usable_is_an_error_that_shows_it() -> None:
    with pytest.raises(
        ValueError, match=r"too few questions passed \(0 unprompted, 0 contextual\); refused: 8 no JSON li"
    ):
        generate_pairs(Script(lambda number, kind: "Sorry."), 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 10}, "n 10 with the kinds unprompted, contextual: give a multiple of 4"),
        ({"n": 0}, "give a multiple of 4"),
        ({"kinds": ("unprompted", "unprompted")}, r"give one or more of unprompted, contextual, each once"),
        ({"kinds": ()}, r"kinds \[\]: give one or more"),
        ({"kinds": ("wrong",)}, r"kinds \['wrong'\]"),
        ({"near": 0.0}, "near 0.0 is a share of words: give a number above 0 and at most 1"),
        ({"near": 1.5}, "near 1.5"),
        ({"per_request": 0}, "per_request 0, most_requests None: both are at least 1"),
        ({"most_requests": 0}, "most_requests 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arguments_are_checked_before_anything_is_asked(arguments: dict[str, Any], message: str) -> None:
    writer = Script()
    with pytest.raises(ValueError, match=message):
        generate_pairs(writer, **{"n": 8, **arguments})
    assert not writer.asked
    if not {"per_request", "most_requests"} & set(arguments):
        with pytest.raises(ValueError, match=message):
            from_world(**{"n": 8, **arguments})


def test_a_writer_that_breaks_its_contract_is_an_error() -> None:
    for told, message in (
        ([(0, "[]"), (0, "[]")], r"gave '\[\]' for place 0 of 4"),
        ([(9, "[]")], r"gave '\[\]' for place 9 of 4"),
        ([(0, None)], "gave 'None' for place 0 of 4: a text for each place, once"),
        ([(0, "[]")], "gave nothing for 3 of 4 requests"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_pairs(lambda prompts, told=told: iter(told), 20)  # type: ignore[arg-type]


def test_a_cache_needs_a_name_and_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the writer has no attribute 'identity' to keep replies under"):
        generate_pairs(lambda prompts: enumerate(["[]"] * len(prompts)), 8, cache=tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text('{"key": "a", "score": 1, "note": ""}\n')
    with pytest.raises(ValueError, match="line 1: this is no line of a writer's cache; give another file"):
        generate_pairs(Script(), 8, cache=tmp_path / "c.jsonl")


# From the bundled world


def test_the_worlds_sets_are_balanced_and_seeded() -> None:
    found = from_world(80, seed=2)
    check_balanced(found, 80)
    assert found == from_world(80, seed=2) and found != from_world(80, seed=3)
    unprompted = {each.question for each in found.questions if each.kind == "unprompted"}
    contextual = [each.question for each in found.questions if each.kind == "contextual"]
    assert all(question.endswith("?") and "." not in question for question in unprompted)
    assert all(re.fullmatch(r"[^.?]+\. [^.?]+\?", question) for question in contextual), "a claim, then the question"
    assert "the bundled world, split generate, seed 2" in found.pairs().origin


def test_the_world_takes_no_question_that_was_trained_on_and_made_up_answers_are_its_own() -> None:
    from caa_lens.organism import grammar
    from caa_lens.organism.judge import _pattern  # pyright: ignore[reportPrivateUsage]

    matching = re.compile("|".join(map(_pattern, grammar.trait_named("hallucination").options[1])))
    for split in ("generate", "test"):
        for each in from_world(40, split=split).questions:
            question = each.question.rpartition(". ")[2]
            assert grammar.split_of("hallucination", question, each.made_up, each.honest) == split
            assert matching.fullmatch(each.made_up) and not matching.fullmatch(each.honest)


def test_a_world_that_is_too_small_says_so() -> None:
    with pytest.raises(
        ValueError, match=r"the world has about \d+ unprompted questions of the split generate that dif"
    ):
        from_world(30, kinds=["unprompted"], near=0.3)


@pytest.mark.usefixtures("unchecked")
def test_the_trained_split_is_refused() -> None:
    split: Any = "train"
    with pytest.raises(ValueError, match="there is no split 'train': give generate or test"):
        from_world(8, split=split)


def test_the_planted_vector_moves_both_kinds() -> None:
    model = caa.load_model("organism-chat")
    vectors = caa.extract_vectors(model, caa.load_contrast_pairs("hallucination")[:100], layers=[2])
    found = from_world(40, split="test")  # none of the questions that the vector was made from
    for kind in KINDS:
        table = caa.summarize(caa.sweep(model, vectors, found.pairs(kind), multipliers=(-1, 0, 1), n_nulls=10))
        effect = table.set_index("multiplier")
        assert effect.loc[1.0, "balanced_low"] > 0.2 and effect.loc[-1.0, "balanced_high"] < -0.15
        assert (effect.loc[[-1.0, 1.0], "beats_random"] == 1).all()


# Through a server


def writer_at(server: Server, **settings: Any) -> EndpointWriter:
    server.score_of = lambda text: Script().good(number_of(text), kind_of(text))
    return EndpointWriter("tester", **{"base_url": server.url, "timeout": 5.0, "concurrency": 1, **settings})


def test_requests_say_what_is_wanted_and_carry_the_key_only_in_their_header(server: Server) -> None:
    check_balanced(generate_pairs(writer_at(server, concurrency=3), 20), 20)
    assert len(server.seen) == 4
    for headers, body in server.seen:
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert {"model": "tester", "temperature": 1, "max_tokens": 1000}.items() <= body.items()
        [message] = body["messages"]
        assert message["role"] == "user" and "Write 5 questions about " in message["content"]
    contents = [body["messages"][0]["content"] for _, body in server.seen]
    assert sum("the fields context, question, made_up and honest" in text for text in contents) == 2
    assert len(set(contents)) == 4


def test_a_server_that_fails_stalls_and_rambles_loses_nothing(server: Server, slept: list[float]) -> None:
    writer = writer_at(server, timeout=0.5)
    server.script = [(500, "oops"), stall, hang_up, (429, "slow"), flood, (200, "{"), "", "I would rather not say."]
    found = generate_pairs(writer, 20)
    check_balanced(found, 20)
    assert [each.reason for each in found.refused] == ["no JSON list"] and len(slept) == 6
    assert found.refused[0].text == "I would rather not say."


def test_a_run_that_failed_goes_on_and_asks_for_nothing_twice(server: Server, tmp_path: Path) -> None:
    cache, writer = tmp_path / "c.jsonl", writer_at(server)
    server.script = [(200, completion(Script().good(2, "unprompted"))), (401, f"expired: {KEY}")]
    with pytest.raises(ValueError, match=r"HTTP 401: expired: \[key\]; is the key in OPENAI_API_KEY right"):
        generate_pairs(writer, 20, cache=cache)
    assert len(cache.read_text().splitlines()) == 1 and KEY not in cache.read_text()
    server.seen.clear()
    found = generate_pairs(writer, 20, cache=cache)
    check_balanced(found, 20)
    assert len(server.seen) == 3
    server.seen.clear()
    assert generate_pairs(writer, 20, cache=cache) == found and not server.seen
    check_balanced(generate_pairs(writer, 40, cache=cache), 40)
    assert len(server.seen) == 4, "a larger set asks only for what is new"
    cache.write_bytes(cache.read_bytes()[:-20])  # torn off while it was written
    server.seen.clear()
    check_balanced(generate_pairs(writer, 40, cache=cache), 40)
    assert len(server.seen) == 1


def test_a_run_that_is_killed_goes_on(server: Server, tmp_path: Path) -> None:
    cache, writer = tmp_path / "c.jsonl", writer_at(server)

    def last(handler: Handler) -> None:
        for _ in range(500):
            if cache.is_file() and len(cache.read_text().splitlines()) == 2:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        stall(handler)

    answered = [Script().good(2, "unprompted"), Script().good(4, "unprompted")]
    server.script = [*answered, last]
    program = (
        "import sys; from pathlib import Path\n"
        "from caa_lens.judging.chat import EndpointWriter\n"
        "from caa_lens.protocols.hallucination import generate_pairs\n"
        "writer = EndpointWriter('tester', sys.argv[1], timeout=30, concurrency=1)\n"
        "generate_pairs(writer, 20, cache=Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, server.url, str(cache)]
    process = subprocess.Popen(command, env={**os.environ}, stderr=subprocess.DEVNULL)
    assert process.wait(60) == -signal.SIGKILL
    server.release.set()
    server.seen.clear()
    check_balanced(generate_pairs(writer, 20, cache=cache), 20)
    assert len(server.seen) == 2


def test_the_cost_is_known_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    writer, cache = writer_at(server), tmp_path / "c.jsonl"
    cost = estimate_pairs(writer, 20, 1.0, 10.0, cache=cache)
    assert (cost.n_requests, cost.n_cached, cost.tokens_out) == (4, 0, 4000) and not server.seen
    assert cost.cost == pytest.approx((cost.tokens_in + 10 * 4000) / 1e6)
    generate_pairs(writer, 20, cache=cache)
    sent = sum(len(body["messages"][0]["content"]) for _, body in server.seen)
    assert cost.tokens_in == pytest.approx(sent / 4, rel=0.1)
    assert estimate_pairs(writer, 20, cache=cache).n_requests == 0
    with pytest.raises(ValueError, match="give both, for a million tokens, or neither"):
        estimate_pairs(writer, 20, 1.0)


def test_what_the_replies_that_are_kept_lack_counts_as_well(server: Server, tmp_path: Path) -> None:
    writer, cache = writer_at(server), tmp_path / "c.jsonl"
    server.script = ["Sorry."]
    check_balanced(generate_pairs(writer, 20, cache=cache, most_requests=2), 8)
    cost = estimate_pairs(writer, 20, cache=cache)
    assert (cost.n_requests, cost.n_cached) == (1, 4)
    server.seen.clear()
    check_balanced(generate_pairs(writer, 20, cache=cache), 20)
    assert len(server.seen) == 1
    assert estimate_pairs(writer, 20, cache=cache, most_requests=1).n_requests == 0
    assert estimate_pairs(writer, 40, cache=cache).n_requests == 4


def test_a_key_that_is_repeated_by_the_server_is_not_kept(server: Server, tmp_path: Path) -> None:
    writer, cache = writer_at(server), tmp_path / "c.jsonl"
    server.script = [f"your key is {KEY}"]
    found = generate_pairs(writer, 8, cache=cache)
    assert found.refused[0].text == "your key is [key]" and KEY not in cache.read_text() and KEY not in writer.identity


# From the command line


def run(*arguments: Any, code: int = 0, typed: str | None = None) -> Any:
    result = CliRunner().invoke(cli.app, ["make-hallucinations", *map(str, arguments)], input=typed)
    assert result.exit_code == code, result.output
    return result


def test_the_command_writes_the_worlds_set(tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    told = run("--world", "--n", 8, "--out", out, "--seed", 4)
    assert "8 of 8 questions: unprompted 4, contextual 4" in told.stdout
    assert list(caa.load_contrast_pairs(out)) == list(from_world(8, seed=4).pairs())
    told = json.loads(run("--world", "--n", 8, "--kinds", "contextual", "--out", out, "--json").stdout)
    assert (told["n"], told["wanted"], told["refused"]) == (8, 8, [])


def test_the_command_asks_before_it_sends_and_says_what_it_refused(server: Server, tmp_path: Path) -> None:
    writer_at(server)
    out, refused = tmp_path / "mine.json", tmp_path / "refused.csv"
    asked = ("--writer", "m", "--base-url", server.url, "--n", 8, "--out", out, "--refused", refused, "--quiet")
    told = run(*asked, code=1, typed="n\n")
    assert "nothing was sent: answer y, or give --yes" in told.stderr and not server.seen and not out.exists()
    server.script = ["Sorry."]
    told = run(*asked, "--price-in", 1, "--price-out", 2, typed="y\n")
    assert "2 requests (0 more are in the cache)" in told.stderr and "no JSON list" in told.stdout
    assert "up to 8 requests in all are made" in told.stderr, "four times what is needed, for each kind"
    assert pd.read_csv(refused)["text"].tolist() == ["Sorry."] and len(caa.load_contrast_pairs(out)) == 8
    assert len((tmp_path / "mine.cache.jsonl").read_text().splitlines()) == 3
    server.seen.clear()
    assert not run(*asked, "--yes").exception and not server.seen, "all replies are kept"
    told = run(*asked[:-5], "--out", out, "--n", 40, "--most-requests", 2, "--yes", "--quiet")
    assert re.search(r"only \d+ of 40 questions: allow more with --most-requests", told.stderr)
    server.seen.clear()
    told = run(*asked[:-5], "--out", out, "--n", 20, "--quiet", code=1, typed="n\n")
    assert "1 requests (4 more are in the cache)" in told.stderr and not server.seen, "more is wanted"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.csv", "--world"), "cannot write a.csv: give a name that ends in .json"),
        (("--out", "a.json"), "give either --world, or --writer with the name of a model at an endpoint"),
        (("--out", "a.json", "--world", "--writer", "m"), "give either --world, or --writer"),
        (("--out", "a.json", "--world", "--base-url", "http://x/v1"), "give either --world, or --writer"),
        (("--out", "a.json", "--writer", "m", "--no-key", "--near", "2"), "near 2.0 is a share of words"),
        (("--out", "a.json", "--writer", "m", "--no-key", "--price-in", "1"), "give both, for a million tokens"),
        (("--out", "a.json", "--world", "--refused", "a.txt"), "cannot write a.txt"),
        (("--out", "a.json", "--world", "--n", "7"), "n 7 with the kinds unprompted, contextual: give a multiple of 4"),
        (("--out", "a.json", "--world", "--kinds", "odd"), "give one or more of unprompted, contextual"),
        (("--out", "a.json", "--writer", "m", "--request", "[1]"), "--request '[1]' is no JSON object"),
        (("--out", "a.json", "--writer", "m", "--key-from", "NOT_THERE"), "variable NOT_THERE is not set"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_command_refuses_what_does_not_fit(arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(run(*arguments, code=1).stderr.split())
