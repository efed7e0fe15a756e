"""Servers of many ways: what each says is read, settled, or told in one line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignkit.benchmarks import Judge
from alignkit.endpoint.judges import JudgeClient
from alignkit.errors import AlignError, InputError, MissingError, WorkError

Answer = tuple[int, str, bytes]  # status, content type, body


def chat(content: object = "False", end: object = "stop", **message) -> dict:
    told = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "message": told, "finish_reason": end}]}


def said(answer: object, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(answer).encode()


def refusal(message: str, status: int = 400, **more) -> Answer:
    return said({"error": {"message": message, **more}}, status)


@contextmanager
def served(respond: Callable[[dict], Answer]) -> Iterator[tuple[str, list[dict]]]:
    """A server's address, and the requests that it got."""
    bodies: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append({**body, "_path": self.path})
            status, kind, raw = respond(body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(url: str, path=None, **options) -> JudgeClient:
    judge = Judge(name="mine", model="m", base_url=url)
    return JudgeClient(judge, path, backoff=0.01, timeout=10, **options)


def ask(judge: JudgeClient, count: int = 1, tokens: int = 16):
    requests = [
        (
            f"q{n}",
            [
                [
                    {"role": "system", "content": "Judge."},
                    {"role": "user", "content": f"q{n}"},
                ]
            ],
        )
        for n in range(count)
    ]
    sampling = {"temperature": 0.0, "max_new_tokens": tokens}
    return judge.ask(requests, sampling, lambda _, texts: texts[0].strip() == "False")


STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Fal"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"se"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
READ = {
    "reasoning beside it": said(chat(reasoning_content="True?")),
    "reasoning by another name": said(chat("\n\nFalse", reasoning="True?")),
    "thinking in the text": said(chat("<think>\nTrue?\n</think>\n\nFalse")),
    "a list of parts": said(chat([{"type": "text", "text": "False"}])),
    "a stream of events": (200, "text/event-stream", STREAM),
    "a byte-order mark": (200, "application/json", b"\xef\xbb\xbf" + said(chat())[2]),
    "plain text as its type": (200, "text/plain", said(chat())[2]),
    "no reason of its end": said(chat(end=None)),
    "usage in decimals": said({**chat(), "usage": {"prompt_tokens": 10.0}}),
}


@pytest.mark.parametrize("way", READ)
def test_a_verdict_is_read_however_it_is_wrapped(way: str):
    with served(lambda _: READ[way]) as (url, bodies):
        verdicts = ask(client(url))
    assert verdicts.texts.keys() == {"q0"}
    assert len(bodies) == 1


PARAMETERS = {
    "max_tokens": "'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
    "temperature": "'temperature' does not support 0.0: Only the default (1) is supported.",
    "top_p": "`temperature` and `top_p` cannot both be specified for this model.",
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_refused_is_adapted_once_with_a_notice(name: str):
    def respond(body: dict) -> Answer:
        return refusal(PARAMETERS[name]) if name in body else said(chat())

    with served(respond) as (url, bodies):
        judge = client(url, concurrency=1)
        assert len(ask(judge, 3).texts) == 3
    assert len(bodies) == 4
    (notice,) = judge.notices
    assert name in notice
    assert name != "max_tokens" or bodies[-1]["max_completion_tokens"] == 16


def test_a_system_message_that_is_refused_is_sent_as_part_of_the_users():
    def respond(body: dict) -> Answer:
        system = body["messages"][0]["role"] == "system"
        return refusal("System role not supported") if system else said(chat())

    with served(respond) as (url, bodies):
        assert ask(client(url)).texts
    assert bodies[-1]["messages"] == [{"role": "user", "content": "Judge.\n\nq0"}]


REFUSED = {
    "a content filter": refusal("The response was filtered", code="content_filter"),
    "a context that is too long": refusal("maximum context length is 2048 tokens"),
    "a filter that calls itself a success": said(chat(None, "content_filter")),
    "the judge's own words": said(chat(None, refusal="I can't assist with that.")),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_is_refused_for_good_is_settled_and_stops_no_other(way: str, tmp_path):
    def respond(body: dict) -> Answer:
        number = int(body["messages"][-1]["content"][1:])
        return REFUSED[way] if number < 8 else said(chat())

    ledger = tmp_path / "judgements.jsonl"
    with served(respond) as (url, bodies):
        for _ in range(2):
            verdicts = ask(client(url, ledger), 10)
            assert len(verdicts.refused) == 8
            assert verdicts.texts.keys() == {"q8", "q9"}
            assert not verdicts.open
            assert all(verdicts.refused.values())
    assert len(bodies) == 10  # nothing is asked twice, nor in the second call


def test_a_verdict_that_its_limit_cut_says_so_and_is_not_paid_for_twice(tmp_path):
    cut = said(chat(None, "length", reasoning_content="Let me think"))
    ledger = tmp_path / "judgements.jsonl"
    with served(lambda _: cut) as (url, bodies):
        for _ in range(2):
            verdicts = ask(client(url, ledger))
            assert (
                "limit of 16 tokens; raise it with --judge-tokens"
                in verdicts.open["q0"]
            )
        assert len(bodies) == 1
        ask(client(url, ledger), tokens=64)
    assert len(bodies) == 2


STOPPED = {
    "no credit": (
        refusal("quota", 429, type="insufficient_quota"),
        WorkError,
        "credit",
    ),
    "a wrong key": (
        refusal("API key not valid. Pass a valid one."),
        MissingError,
        "key",
    ),
    "an error as a success": (
        refusal("No credentials", 200, code=401),
        MissingError,
        "key",
    ),
    "a list of errors": (
        said([{"error": {"message": "API key not valid", "code": 400}}], 400),
        MissingError,
        "key",
    ),
    "no such path": ((404, "text/html", b"<html>nothing</html>"), InputError, "404"),
}


@pytest.mark.parametrize("way", STOPPED)
def test_what_concerns_every_request_stops_at_once(way: str):
    answer, kind, words = STOPPED[way]
    with (
        served(lambda _: answer) as (url, bodies),
        pytest.raises(AlignError, match=words) as caught,
    ):
        ask(client(url, concurrency=1), 9)
    assert caught.type is kind
    assert len(bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [(200, "text/html", b"<!doctype html><title>UI</title>"), said({"choices": []})],
)
def test_a_well_formed_answer_of_the_wrong_type_is_asked_for_once_more(answer: Answer):
    with served(lambda _: answer) as (url, bodies):
        why = ask(client(url, rounds=1)).open["q0"]
    assert len(bodies) == 2
    assert "unreadable answer (200)" in why


def test_azures_version_goes_with_every_request():
    with served(lambda _: said(chat())) as (url, bodies):
        ask(client(f"{url}?api-version=2024-10-21"))
    assert bodies[0]["_path"] == "/v1/chat/completions?api-version=2024-10-21"
