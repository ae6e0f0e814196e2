"""The endpoint judge against a real server on loopback that also fails, stalls and returns nonsense."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chat_server import KEY, Handler, Server, completion, drip, flood, hang_up, stall
from chat_server import server as server
from chat_server import slept as slept

from caa_lens.judging import pacing
from caa_lens.judging.answers import COLUMNS
from caa_lens.judging.endpoint import EndpointJudge, estimate
from caa_lens.judging.pacing import Pace, Stopped, retry_after
from caa_lens.judging.scores import requests_of, score_answers

pytest.importorskip("tenacity")


def frame_of(n: int = 3, multiplier: float = 1.75) -> pd.DataFrame:
    rows = [(f"id{i}", "sycophancy", 7777, multiplier, i, f"Question {i}?", f"answer <{i}>") for i in range(n)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def judge_at(server: Server, **settings: Any) -> EndpointJudge:
    return EndpointJudge("tester", **{"base_url": server.url, "timeout": 5.0, "concurrency": 1, **settings})


def test_a_request_is_what_it_should_be_and_nothing_more(server: Server) -> None:
    server.score_of = lambda text: text.partition("answer <")[2][0]
    scored = score_answers(frame_of(4), judge_at(server, concurrency=3))
    assert scored["score"].tolist() == [0, 1, 2, 3] and scored["note"].eq("").all()
    assert scored["judge"].iloc[0].startswith(f"tester at {server.url} (")
    assert len(server.seen) == 4
    for headers, body in server.seen:
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert {"model": "tester", "temperature": 0, "max_tokens": 16}.items() <= body.items()
        assert set(body) == {"model", "messages", "temperature", "max_tokens"}
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        sent = json.dumps(body)
        assert "1.75" not in sent and "7777" not in sent and "id" not in body and "multiplier" not in sent
        assert "Question" in sent and "answer <" in sent and "says what the person who asks would like" in sent


def test_settings_go_into_the_body_and_no_key_where_none_is_wanted(server: Server) -> None:
    given = {"max_tokens": None, "max_completion_tokens": 900, "temperature": 1}
    score_answers(frame_of(1), judge_at(server, settings=given, key_from=None))
    [(headers, body)] = server.seen
    assert "Authorization" not in headers
    assert (body["max_completion_tokens"], body["temperature"]) == (900, 1) and "max_tokens" not in body


@pytest.mark.parametrize(
    ("failure", "naps"),
    [
        ((500, "oops"), 1),
        ((503, ""), 1),
        ((408, ""), 1),
        ((429, "slow down"), 1),
        (stall, 1),
        (drip, 1),
        (hang_up, 1),
        (flood, 1),
        ((200, "<html>no</html>"), 1),
        ((200, "{"), 1),
        ((200, '{"choices": []}'), 1),
        ((200, "[]"), 1),
        ("I would rather not say", 0),
        ("11", 0),
        ((200, completion(None, "content_filter")), 0),
    ],
)
def test_what_passes_is_tried_again(server: Server, slept: list[float], failure: Any, naps: int) -> None:
    server.script = [failure]
    patience = 1.0 if failure in (stall, drip) else 5.0
    scored = score_answers(frame_of(1), judge_at(server, timeout=patience))
    assert scored["score"].tolist() == [7]
    assert len(server.seen) == 2 and server.seen[0][1] == server.seen[1][1]
    assert len(slept) == naps


def test_waiting_grows_and_is_no_shorter_than_the_server_asks(server: Server, slept: list[float]) -> None:
    server.script = [(500, "")] * 4 + [(429, "", {"retry-after": "42"})]
    assert score_answers(frame_of(1), judge_at(server))["score"].tolist() == [7]
    backoff = slept[:4]
    assert all(low <= nap <= low + 1.01 for low, nap in zip((1, 2, 4, 8), backoff, strict=True))
    assert 42 <= sum(slept[4:]) < 42 + 30, "no sooner than asked for"


def test_all_threads_wait_where_one_is_told_to(server: Server, slept: list[float]) -> None:
    pace = Pace(None)
    pace.wait_for_turn()
    pace.hold(30)
    pace.wait_for_turn()
    assert 25 < sum(slept) <= 30, "less what has really passed, on a busy machine too"
    pace.stop()
    with pytest.raises(Stopped):
        pace.wait_for_turn()


def test_a_date_and_nonsense_in_retry_after() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < retry_after(later) <= 90
    assert retry_after("7.5") == 7.5
    for nothing in (None, "", "soon", "-3", "nan", "inf", format_datetime(datetime.now(UTC) - timedelta(days=1))):
        assert retry_after(nothing) == 0


def test_a_wait_that_is_too_long_ends_the_run(server: Server, slept: list[float]) -> None:
    server.script = [(429, "quota", {"retry-after": "86400"})]
    with pytest.raises(ValueError, match=r"asks to wait 86400 s \(HTTP 429: quota\): run it again then; scores"):
        score_answers(frame_of(1), judge_at(server))
    assert not slept and len(server.seen) == 1


def test_a_server_that_stays_down_is_an_error_after_all_attempts(server: Server, slept: list[float]) -> None:
    server.script = [(500, f"down, {KEY}")] * 3
    with pytest.raises(ConnectionError, match=r"failed 3 times, at last with: HTTP 500: down, \[key\]\. Scores"):
        score_answers(frame_of(1), judge_at(server, retries=2))
    assert len(server.seen) == 3 and len(slept) == 2


def test_nobody_at_the_address_is_an_error_too(server: Server, slept: list[float]) -> None:
    with Server() as other:
        url = other.url  # closed before it is asked
    with pytest.raises(ConnectionError, match=r"failed 2 times, at last with: .*[Cc]onnection refused"):
        score_answers(frame_of(1), judge_at(server, base_url=url, retries=1))


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "does the model take these settings"),
        (401, "is the key in OPENAI_API_KEY right for this address"),
        (403, "may the key in OPENAI_API_KEY use the model 'tester'"),
        (404, "does the address end before /chat/completions"),
        (302, "is base_url the address of an OpenAI-compatible API"),
    ],
)
def test_what_cannot_succeed_ends_the_run_at_once(server: Server, slept: list[float], status: int, advice: str) -> None:
    server.script = [(status, f"no: {KEY}", {"location": "http://127.0.0.1:1/"})]
    with pytest.raises(ValueError) as caught:
        score_answers(frame_of(5), judge_at(server))
    assert f"{server.url}/chat/completions answered HTTP {status}: no: [key]; {advice}" in str(caught.value)
    assert len(server.seen) == 1 and not slept, "nothing is sent after it"


def test_nonsense_is_asked_again_and_then_recorded(server: Server, tmp_path: Path, slept: list[float]) -> None:
    said = f"As a judge   with\nthe key {KEY} I decline. " + "x" * 200
    server.script = [said] * 3
    cache = tmp_path / "c.jsonl"
    scored = score_answers(frame_of(1), judge_at(server), cache=cache)
    assert scored["score"].isna().all()
    assert scored["note"].iloc[0].startswith("no score in the reply 'As a judge with the key [key] I decline. xxx")
    assert len(scored["note"].iloc[0]) < 120 and len(server.seen) == 3 and not slept
    score_answers(frame_of(1), judge_at(server), cache=cache)
    assert len(server.seen) == 3
    server.script = [(200, completion("", "length"))]
    assert score_answers(frame_of(1), judge_at(server, asks=1))["note"].tolist() == ["an empty reply (length)"]


def test_a_run_that_failed_half_way_sends_only_what_is_missing(server: Server, tmp_path: Path) -> None:
    cache, frame = tmp_path / "c.jsonl", frame_of(8)
    server.script = ["5"] * 3 + [(401, "expired")]
    with pytest.raises(ValueError, match="answered HTTP 401"):
        score_answers(frame, judge_at(server), cache=cache)
    assert len(cache.read_text().splitlines()) == 3 and len(server.seen) == 4
    before = {json.dumps(body) for _, body in server.seen}
    server.seen.clear()
    server.script = []
    scored = score_answers(frame, judge_at(server, concurrency=3, timeout=9.0), cache=cache, seed=5)
    assert len(server.seen) == 5
    assert len({json.dumps(body) for _, body in server.seen} & before) == 1, "only the one that failed is sent again"
    assert sorted(scored["score"])[:3] == [5, 5, 5] and scored["score"].notna().all()


def test_replies_under_way_when_another_fails_are_kept(server: Server, tmp_path: Path) -> None:
    failed = threading.Event()

    def slow(handler: Handler) -> None:
        failed.wait(5)
        time.sleep(0.1)
        handler.reply(200, completion("9"))

    def broken(handler: Handler) -> None:
        while len(handler.server.seen) < 2:
            time.sleep(0.01)
        handler.reply(403, "no")
        failed.set()

    server.script = [slow, broken]
    cache = tmp_path / "c.jsonl"
    with pytest.raises(ValueError, match="HTTP 403"):
        score_answers(frame_of(2), judge_at(server, concurrency=2), cache=cache)
    assert [json.loads(line)["score"] for line in cache.read_text().splitlines()] == [9]


def test_a_run_that_is_killed_goes_on(server: Server, tmp_path: Path) -> None:
    import os
    import signal
    import subprocess
    import sys

    def last(handler: Handler) -> None:
        for _ in range(500):  # the third reply may still be on its way to the cache
            if cache.is_file() and len(cache.read_text().splitlines()) == 3:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        stall(handler)

    frame, cache = frame_of(5), tmp_path / "c.jsonl"
    frame.to_parquet(tmp_path / "a.parquet")
    server.script = ["1", "2", "3", last]
    program = (
        "import sys, pandas as pd; from pathlib import Path\n"
        "from caa_lens.judging.endpoint import EndpointJudge\n"
        "from caa_lens.judging.scores import score_answers\n"
        "judge = EndpointJudge('tester', sys.argv[2], timeout=30, concurrency=1)\n"
        "score_answers(pd.read_parquet(sys.argv[1]), judge, cache=Path(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.parquet"), server.url, str(cache)]
    process = subprocess.Popen(command, env={**os.environ}, stderr=subprocess.DEVNULL)
    assert process.wait(300) == -signal.SIGKILL
    assert len(cache.read_text().splitlines()) == 3 and KEY not in cache.read_text()
    server.seen.clear()
    server.release.set()
    scored = score_answers(frame, judge_at(server), cache=cache)
    assert len(server.seen) == 2 and sorted(scored["score"]) == [1, 2, 3, 7, 7]


def test_the_key_is_nowhere(
    server: Server, tmp_path: Path, slept: list[float], caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    judge = judge_at(server)
    cache = tmp_path / "c.jsonl"
    for script in ([(401, KEY)], [hang_up] * 9, [(200, KEY)] * 9, [KEY] * 9, []):
        server.script = list(script)
        try:
            score_answers(frame_of(2), judge, cache=cache).to_csv(tmp_path / "s.csv")
        except (ValueError, ConnectionError) as error:
            told = "".join(traceback.format_exception(error))
            chain: BaseException | None = error
            while chain is not None:
                assert KEY not in repr(chain) and KEY not in repr(vars(chain)), chain
                assert not hasattr(chain, "request"), "an httpx error carries its request, and that the key"
                chain = chain.__cause__ or chain.__context__
            assert KEY not in told
    assert KEY not in repr(judge) and KEY not in judge.identity and KEY not in caplog.text
    assert all(KEY not in str(record.__dict__) for record in caplog.records)
    assert KEY not in "".join(capfd.readouterr())
    written = [file.read_text() for file in tmp_path.iterdir()]
    assert len(written) == 2 and not any(KEY in text for text in written)
    assert len(server.seen) > 5 and all(headers["Authorization"].endswith(KEY) for headers, _ in server.seen)


def test_a_missing_or_broken_key_is_an_error_before_anything_is_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(ValueError, match=r"variable OPENAI_API_KEY is not set: put the key for http://127.*there,"):
        score_answers(frame_of(1), judge_at(server))
    for broken in ("sk-ä", "sk 1", "sk\n1"):
        monkeypatch.setenv("MY_KEY", broken)
        with pytest.raises(ValueError, match="what is in MY_KEY is no key") as caught:
            score_answers(frame_of(1), judge_at(server, key_from="MY_KEY"))
        assert broken not in str(caught.value)
    assert not server.seen
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    score_answers(frame_of(1), judge_at(server, key_from="MY_KEY"))
    assert server.seen[0][0]["Authorization"] == f"Bearer {KEY}"


def test_requests_are_no_more_a_minute_than_allowed(server: Server, slept: list[float]) -> None:
    scored = score_answers(frame_of(6), judge_at(server, per_minute=30, concurrency=3))
    assert scored["score"].eq(7).all()
    assert sum(slept) == pytest.approx(2 * 5, rel=0.5), "five gaps of two seconds, which threads may sleep together"


def test_a_pace_keeps_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pacing, "monotonic", lambda: now[0])
    monkeypatch.setattr(pacing, "pause", lambda stopped, seconds: now.__setitem__(0, now[0] + seconds))
    pace, left = Pace(40), list[float]()
    for _ in range(5):
        pace.wait_for_turn()
        left.append(now[0] - 100)
    assert left == pytest.approx([0, 1.5, 3, 4.5, 6])
    now[0] += 60
    pace.wait_for_turn()
    assert now[0] == pytest.approx(166), "time that was not used is not saved up"
    unlimited = Pace(None)
    for _ in range(3):
        unlimited.wait_for_turn()
    assert now[0] == pytest.approx(166)


def test_the_address_comes_from_the_environment_where_none_is_given(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EndpointJudge("m").base_url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
    assert EndpointJudge("m").base_url == server.url
    assert score_answers(frame_of(1), EndpointJudge("m"))["score"].tolist() == [7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "http://user:sk-1@host/v1"}, "base_url holds more than an address"),
        ({"base_url": "https://host/v1?api-key=sk-1"}, "base_url holds more than an address"),
        ({"base_url": "host/v1"}, "base_url 'host/v1' is no address: give one such as https://api.openai.com/v1"),
        ({"base_url": "http://host:99999"}, "is no address"),
        ({"base_url": "http://[::1"}, "is no address"),
        ({"key_from": "sk-1"}, "key_from must be the name of an environment variable, such as OPENAI_API_KEY"),
        ({"settings": {"stream": True, "n": 2}}, "settings cannot hold n, stream: the judge sets these itself"),
        ({"timeout": 0.0}, "timeout 0.0, .*the first two are above 0"),
        ({"per_minute": -1.0}, "per_minute -1.0"),
        ({"retries": -1}, "retries -1"),
        ({"asks": 0}, "asks 0"),
        ({"concurrency": 0}, "concurrency 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        EndpointJudge("m", **settings)
    assert "sk-1" not in str(caught.value)
    with pytest.raises(ValueError, match="the judge's model has no name"):
        EndpointJudge(" ")


def test_identity_changes_with_whatever_could_change_a_score() -> None:
    one = EndpointJudge("m", "http://host/v1")
    others = [EndpointJudge("n", "http://host/v1"), EndpointJudge("m", "http://other/v1")]
    others.append(EndpointJudge("m", "http://host/v1", settings={"temperature": 1}))
    assert len({judge.identity for judge in (one, *others)}) == 4
    same = EndpointJudge("m", "http://host/v1/", key_from=None, timeout=1, retries=0, per_minute=1.0, concurrency=9)
    assert same.identity == one.identity


def test_the_cost_is_known_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    cache, judge, frame = tmp_path / "c.jsonl", judge_at(server), frame_of(4)
    cost = estimate(frame, judge, price_in=2.0, price_out=10.0, cache=cache)
    assert (cost.n_requests, cost.n_cached, cost.tokens_out) == (4, 0, 64) and not server.seen
    assert cost.cost == pytest.approx((cost.tokens_in * 2 + 64 * 10) / 1e6)
    score_answers(frame, judge, cache=cache)
    sent = sum(len(message["content"]) for _, body in server.seen for message in body["messages"])
    assert cost.tokens_in == pytest.approx(sent / 4, rel=0.1)
    after = estimate(pd.concat([frame, frame_of(5).tail(1)]), judge, cache=cache)
    assert (after.n_requests, after.n_cached, after.cost) == (1, 4, None)
    assert "1 requests (4 more are in the cache), about" in str(after) and "unknown without prices" in str(after)
    assert "about 0." in str(cost) and len(requests_of(frame)[0]) == 4
    for prices in ((1.0, None), (None, 1.0), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="give both, for a million tokens, or neither"):
            estimate(frame, judge, *prices)
