"""Requests to an endpoint that fails: a real server on 127.0.0.1 does each fault."""

import asyncio
import contextlib
import gzip
import logging
import socket
import threading
import time
import tracemalloc
from contextlib import AbstractContextManager

import pytest
from servers import OpenAIServer

from alignkit.endpoint import permits
from alignkit.endpoint.costs import Budget, estimate
from alignkit.endpoint.faults import retry_after
from alignkit.endpoint.http import Endpoint
from alignkit.errors import InputError, MissingError, WorkError

PASSING = [
    "429",
    "429:0",
    "500",
    "503",
    "503:0",
    "reset",
    "half",
    "garbage",
    "shapeless",
    "slow",
]


def bodies(count):
    return [
        {
            "model": "m",
            "messages": [{"role": "user", "content": f"q{i}"}],
            "max_tokens": 8,
        }
        for i in range(count)
    ]


def content(answer):
    return answer["choices"][0]["message"]["content"] + ""


def ask(server, count=20, budget=None, **options):
    endpoint = Endpoint(
        server.url,
        **{"model": "m", "backoff": 0.01, "timeout": 20, "concurrency": 8, **options},
    )
    answers = {}
    outcome = endpoint.post(
        "/chat/completions", bodies(count), content, answers.__setitem__, budget
    )
    return answers, outcome


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_retried_and_nothing_is_asked_twice(fault):
    with OpenAIServer(
        lambda b: b["messages"][0]["content"], faults=[fault] * 3, slow=2.5
    ) as server:
        answers, outcome = ask(server, timeout=2 if fault == "slow" else 20)
    assert answers == {i: f"q{i}" for i in range(20)}
    assert outcome.left == {} and outcome.stopped is None
    assert server.faulted == {fault: 3}
    assert len(server.served) == len(server.times_served()) == 20


def test_a_burst_longer_than_the_attempts_leaves_that_request_and_keeps_the_others():
    with OpenAIServer(faults=["500"] * 3) as server:
        answers, outcome = ask(server, count=4, attempts=3, concurrency=1)
    assert sorted(answers) == [1, 2, 3]
    assert (
        list(outcome.left) == [0]
        and "500" in outcome.left[0]
        and "3 attempts" in outcome.left[0]
    )
    with pytest.raises(
        WorkError, match=r"(?s)request 0.*1 of 4 requests are left.*again"
    ):
        outcome.demand_all(4, "Run it again.")


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("404", InputError, "model 'm'.*no such model"),
        ("410", InputError, "model 'm' is retired"),
        ("402", WorkError, "no credit"),
        ("503:90000", WorkError, "asks to wait 90000 s"),
    ],
)
def test_a_fault_that_concerns_every_request_stops_at_once(fault, error, says):
    with OpenAIServer(faults=[fault] * 99) as server:
        answers, outcome = ask(server, count=50, concurrency=2)
    assert answers == {} and len(outcome.left) == 50
    assert server.requests <= 2
    with pytest.raises(error, match=rf"(?s){says}.*50 of 50"):
        outcome.demand_all(50, "")


def test_a_request_the_server_rejects_is_not_retried_and_five_in_a_row_end_the_work():
    with OpenAIServer(faults=["400"]) as server:
        answers, outcome = ask(server, count=3)
        assert len(answers) == 2 and "bad request" in next(iter(outcome.left.values()))
        assert server.requests == 3
    with OpenAIServer(faults=["400"] * 99) as server:
        _, outcome = ask(server, count=50, concurrency=1)
    assert server.requests == 5 and isinstance(outcome.stopped, InputError)


def test_retry_after_holds_back_every_request():
    with OpenAIServer(faults=["429:1"]) as server:
        answers, _ = ask(server, count=3, concurrency=1)
        waited = server.arrivals[1] - server.arrivals[0]
    assert len(answers) == 3 and waited >= 1.0


def test_retry_after_is_read_as_seconds_and_as_a_date():
    now = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT
    assert retry_after("2.5", now) == 2.5
    assert retry_after("Sun, 09 Sep 2001 01:47:40 GMT", now) == 60
    assert retry_after("Sun, 09 Sep 2001 01:00:00 GMT", now) == 0
    assert [
        retry_after(bad, now) for bad in (None, "", "soon", "nan", "inf", "Sun, 99 Foo")
    ] == [None] * 6


def test_a_rate_limited_request_outlasts_its_attempts_while_others_are_answered():
    class Unfair(OpenAIServer):
        """Turns the first conversation away until the 20 others are answered."""

        def next_fault(self, body):
            if body["messages"][0]["content"] != "q0":
                return None
            # One may have been answered just before this request was sent; the second
            # was so after it.
            enough, until = min(len(self.served) + 2, 20), time.monotonic() + 10
            while len(self.served) < enough and time.monotonic() < until:
                time.sleep(0.01)
            if len(self.served) >= 20:
                return None
            self.faulted["429"] += 1
            return "429"

    with Unfair(latency=0.1) as server:
        answers, outcome = ask(server, count=21, attempts=3, concurrency=2)
    assert server.faulted["429"] > 3  # more than the attempts
    assert sorted(answers) == list(range(21)) and outcome.left == {}


def test_requests_per_minute_spreads_the_requests():
    with OpenAIServer() as server:
        ask(server, count=9, requests_per_minute=600)
    # 0.8 s apart when sent; a busy machine sees the first of them late
    assert len(server.arrivals) == 9
    assert server.arrivals[-1] - server.arrivals[0] >= 0.6


def test_nothing_is_asked_while_answers_wait_to_be_written():
    written, ahead = [], []
    with OpenAIServer() as server:
        endpoint = Endpoint(server.url, model="m", concurrency=4)

        def write(index, answer):
            time.sleep(0.02)
            ahead.append(len(server.served) - len(written))
            written.append(index)

        endpoint.post("/chat/completions", bodies(40), content, write, None)
    assert sorted(written) == list(range(40))
    assert max(ahead) <= 4


def test_concurrency_is_used_and_kept():
    with OpenAIServer(latency=0.2) as server:
        ask(server, count=24, concurrency=6)
    assert server.most_at_once == 6


def test_a_server_gone_for_good_ends_with_what_is_left():
    server = OpenAIServer(latency=0.01).__enter__()
    endpoint = Endpoint(server.url, model="m", backoff=0.01, attempts=3, concurrency=4)
    answers = {}

    def done(index, text):
        answers[index] = text
        if len(answers) == 10:
            server.stop()

    start = time.monotonic()
    outcome = endpoint.post("/chat/completions", bodies(200), content, done)
    assert time.monotonic() - start < 60
    assert len(answers) >= 10 and len(answers) + len(outcome.left) == 200
    with pytest.raises(
        WorkError, match=rf"(?s)in a row.*{200 - len(answers)} of 200 requests are left"
    ):
        outcome.demand_all(200, "")


def key_to(server: OpenAIServer) -> AbstractContextManager[None]:
    """The user has allowed it."""
    return permits.allowing([(permits.place(server.url), "SOME_API_KEY")])


def test_a_missing_key_names_its_variable_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    with permits.allowing([("api.example:443", "SOME_API_KEY")]):
        endpoint = Endpoint("https://api.example/v1", key_variable="SOME_API_KEY")
    with pytest.raises(MissingError, match="export SOME_API_KEY=") as caught:
        endpoint.post("/chat/completions", bodies(1), content, lambda *_: None)
    assert caught.value.exit_code == 3


def test_a_server_on_this_machine_needs_no_key(monkeypatch):
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    with OpenAIServer(lambda b: "yes") as server:
        answers, _ = ask(server, count=1, key_variable="SOME_API_KEY")
    assert answers == {0: "yes"}


def test_a_key_given_in_the_place_of_a_variables_name_is_not_shown():
    allowed = permits.allowing([("api.example:443", "sk-secret-1")])
    with allowed, pytest.raises(MissingError, match="export NAME") as caught:
        Endpoint("https://api.example/v1", key_variable="sk-secret-1").key()
    assert "secret" not in str(caught.value)


def test_a_refused_key_stops_at_once_and_is_never_shown(monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_API_KEY", "sk-secret-1234567890")
    # its error message repeats the key it was given
    with OpenAIServer(key="another") as server, key_to(server):
        _, outcome = ask(server, count=30, key_variable="SOME_API_KEY", concurrency=1)
    assert server.requests == 0 and len(outcome.left) == 30
    with pytest.raises(
        MissingError,
        match=r"refused the key \(401\): put a valid key into SOME_API_KEY",
    ) as caught:
        outcome.demand_all(30, "")
    everything = (
        f"{caught.value} {outcome} {caplog.text} {capfd.readouterr()}"
        f" {vars(Endpoint(server.url))}"
    )
    assert "secret" not in everything and "***" in everything


@pytest.mark.parametrize("key", ["sk-1\nX-Evil: 1", "ключ", "two words"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", key)
    allowed = permits.allowing([("127.0.0.1:9", "SOME_API_KEY")])
    with allowed, pytest.raises(MissingError) as caught:
        Endpoint("http://127.0.0.1:9/v1", key_variable="SOME_API_KEY").key()
    assert key not in str(caught.value) and "SOME_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pw-secret@host/v1",
        "https://host/v1?key=pw-secret",
        "https://h/#pw-secret",
    ],
)
def test_secrets_in_a_url_are_refused_without_showing_them(url):
    with pytest.raises(InputError) as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "ftp://host/",
        "http://",
        "http://host:99999/",
        "file:///etc",
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InputError, match="base URL"):
        Endpoint(url)


def test_control_characters_of_a_server_do_not_reach_the_terminal():
    assert "\x1b" not in Endpoint("http://localhost/v1").shown(
        "\x1b[2Jboo\r\n\x07" * 1000
    )


def test_it_works_inside_a_running_event_loop():
    async def trainer(server):
        return ask(server, count=3)

    with OpenAIServer() as server:
        answers, _ = asyncio.run(trainer(server))
    assert len(answers) == 3


def test_an_interrupt_in_the_callback_ends_the_requests():
    class Stop(BaseException):
        pass

    def interrupt(index, text):
        raise Stop

    with OpenAIServer(latency=0.2) as server:
        start = time.monotonic()
        with pytest.raises(Stop):
            Endpoint(server.url, concurrency=2).post(
                "/chat/completions", bodies(500), content, interrupt
            )
        assert time.monotonic() - start < 20  # all of them take 50 s
        time.sleep(0.2)
        requests = server.requests
        time.sleep(0.2)
        assert server.requests == requests < 10


def test_the_cost_limit_is_never_exceeded_and_what_is_left_is_named():
    with OpenAIServer() as server:  # each answer: 5 tokens out and a few in
        budget = Budget(limit=0.0002, price=1.0)  # 200 tokens
        answers, outcome = ask(server, count=100, budget=budget)
    assert 0 < len(answers) < 40
    assert (
        budget.input_tokens + budget.output_tokens <= 200 and budget.dollars <= 0.0002
    )
    with pytest.raises(
        WorkError,
        match=r"(?s)before exceeding the limit.*of \$0\.0002.*of 100 requests are left",
    ):
        outcome.demand_all(100, "")


def test_usage_is_summed_and_a_lost_attempt_counts_against_the_limit_only():
    with OpenAIServer(faults=["half"]) as server:
        clean, lost = Budget(1.0, 1.0), Budget(1.0, 1.0)
        ask(server, count=1, budget=lost)
        ask(server, count=1, budget=clean)
    assert (lost.input_tokens, lost.output_tokens) == (
        clean.input_tokens,
        clean.output_tokens,
    ) and clean.output_tokens == 5
    assert lost._doubtful > clean._doubtful == 0


def test_a_limit_without_a_price_is_refused():
    with pytest.raises(InputError, match="needs a price"):
        Budget(limit=1.0, price=None)


def test_an_estimate_says_what_it_rests_on():
    shown = estimate(
        [{"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50}],
        price=0.9,
    )
    assert (shown.input_tokens, shown.output_tokens) == (
        100,
        50,
    ) and shown.dollars == pytest.approx(150 * 0.9e-6)
    assert "characters / 4" in str(shown)


class Odd:
    """A server that answers every request by what `answer(connection)` does."""

    def __init__(self, answer):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.answer = answer
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    self.answer(connection)


def head(connection, *lines):
    connection.sendall("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode())


def drips(connection):
    head(connection, "Content-Length: 1000000")
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.05)


def drips_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        connection.sendall(f"X-{number}: 1\r\n".encode())
        time.sleep(0.05)


def packs(megabytes, packing="gzip"):
    packed = gzip.compress(b"[" + b" " * megabytes * 2**20 + b"]")

    def answer(connection):
        head(
            connection,
            f"Content-Encoding: {packing}",
            f"Content-Length: {len(packed)}",
        )
        connection.sendall(packed)

    return answer


def never_ends(connection):
    head(connection, "Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    for _ in range(200):
        connection.sendall(chunk)


def nests(connection):
    raw = b"[" * 500_000
    head(connection, f"Content-Length: {len(raw)}")
    connection.sendall(raw)


ODD = {
    "drips": drips,
    "drips headers": drips_headers,
    "bomb": packs(300),
    "another packing": packs(1, "zstd"),
    "never ends": never_ends,
    "nests": nests,
}


@pytest.mark.parametrize("kind", ODD)
def test_no_server_holds_a_request_longer_or_fills_the_memory(kind):
    tracemalloc.start()
    try:
        with Odd(ODD[kind]) as server:
            endpoint = Endpoint(server.url, timeout=1.0, attempts=1, model="m")
            start = time.monotonic()
            assert endpoint.get("/models") is None
            assert time.monotonic() - start < 20
            outcome = endpoint.post("/chat/completions", bodies(1), content, print)
            assert outcome.left or outcome.refused
        assert tracemalloc.get_traced_memory()[1] < 400 * 2**20
    finally:
        tracemalloc.stop()


def test_a_packed_answer_is_read():
    def answer(connection):
        raw = gzip.compress(b'{"data": [{"id": "m"}]}')
        head(connection, "Content-Encoding: gzip", f"Content-Length: {len(raw)}")
        connection.sendall(raw)

    with Odd(answer) as server:
        assert Endpoint(server.url).get("/models") == {"data": [{"id": "m"}]}


def test_a_server_is_asked_from_inside_a_running_loop():
    async def inside():
        return Endpoint(server.url).get("/models")

    with OpenAIServer() as server:
        assert asyncio.run(inside())["data"][0]["id"] == "m"
