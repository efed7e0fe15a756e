"""Asking a judge: nothing judged is lost or paid for twice, whatever the endpoint does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from servers import OpenAIServer

from alignkit import kits, plugins
from alignkit.benchmarks import Judge
from alignkit.endpoint.judges import JudgeClient, default_judge, resolve
from alignkit.endpoint.permits import place
from alignkit.engines.base import Sampling
from alignkit.errors import InputError, MissingError, PluginError, WorkError

GREEDY = {"temperature": 0.0, "max_new_tokens": 16}


def user(text):
    return [{"role": "user", "content": text}]


def questions(count):
    return [(f"id{i}", [user(f"question {i}")]) for i in range(count)]


def judge(server, **changes):
    return replace(Judge(name="j", model="m", base_url=server.url), **changes)


def client(server, store=None, **options):
    return JudgeClient(
        judge(server, price=options.pop("price", None)),
        store,
        **{"backoff": 0.01, **options},
    )


def readable(id_, texts):
    return all(text in ("True", "False") for text in texts)


def test_verdicts_are_kept_and_found_again_without_asking(tmp_path):
    store = tmp_path / "judgements.jsonl"
    with OpenAIServer(lambda b: "True") as server:
        seen = {}
        first = client(server, store).ask(
            questions(5), GREEDY, readable, seen.__setitem__
        )
        again = client(server, store).ask(questions(6), GREEDY, readable)
    assert (
        first.texts == seen == {f"id{i}": ("True",) for i in range(5)}
        and first.open == {}
    )
    assert (first.asked, first.reused) == (5, 0) and (again.asked, again.reused) == (
        1,
        5,
    )
    assert len(server.served) == 6
    assert (
        server.served[0]["max_tokens"] == 16 and server.served[0]["temperature"] == 0.0
    )


@pytest.mark.parametrize("change", ["model", "sampling", "messages"])
def test_a_verdict_is_reused_only_for_the_same_model_messages_and_sampling(
    change, tmp_path
):
    store = tmp_path / "judgements.jsonl"
    with OpenAIServer(lambda b: "True") as server:
        client(server, store).ask([("a", [user("x")])], GREEDY, readable)
        other = JudgeClient(
            judge(server, model="other" if change == "model" else "m"), store
        )
        sampling = {**GREEDY, "temperature": 0.5} if change == "sampling" else GREEDY
        other.ask(
            [("a", [user("y" if change == "messages" else "x")])], sampling, readable
        )
    assert len(server.served) == 2


def test_the_same_question_under_two_ids_is_asked_once():
    with OpenAIServer(lambda b: "True") as server:
        verdicts = client(server).ask(
            [("a", [user("x")]), ("b", [user("x")])], GREEDY, readable
        )
    assert (
        verdicts.texts == {"a": ("True",), "b": ("True",)} and len(server.served) == 1
    )


@pytest.mark.parametrize(
    "text", ["I cannot help with that.", "", "Trueish", "\ud800\x00"]
)
def test_an_unreadable_verdict_stays_open_and_is_asked_again_by_the_next_call(
    text, tmp_path
):
    store = tmp_path / "judgements.jsonl"
    said = [text] * 3
    with OpenAIServer(lambda b: said.pop() if said else "False") as server:
        first = client(server, store, rounds=2).ask(questions(1), GREEDY, readable)
        assert (
            first.texts == {}
            and "unreadable verdict" in first.open["id0"]
            and len(server.served) == 2
        )
        second = client(server, store, rounds=2).ask(questions(1), GREEDY, readable)
    assert second.texts == {"id0": ("False",)} and len(server.served) == 4


def test_a_better_parser_reads_stored_verdicts_without_asking(tmp_path):
    store = tmp_path / "judgements.jsonl"
    with OpenAIServer(lambda b: "true.") as server:
        client(server, store, rounds=1).ask(questions(3), GREEDY, readable)
        verdicts = client(server, store).ask(
            questions(3), GREEDY, lambda i, texts: True
        )
    assert len(verdicts.texts) == 3 and len(server.served) == 3


def test_several_questions_about_one_response_are_accepted_together(tmp_path):
    store = tmp_path / "judgements.jsonl"
    said = {"a": ["True", "True"], "b": ["False", "unclear"]}

    with OpenAIServer(lambda b: said[b["messages"][0]["content"]].pop()) as server:
        verdicts = client(server, store).ask(
            [("x", [user("a"), user("b")]), ("none", [])], GREEDY, readable
        )
    assert (
        verdicts.texts == {"x": ("True", "False"), "none": ()}
        and len(server.served) == 4
    )


def test_a_question_that_fails_for_good_stays_open_and_the_others_are_judged(tmp_path):
    with OpenAIServer(lambda b: "True", faults=["400"]) as server:
        verdicts = client(server, rounds=1, concurrency=1).ask(
            questions(4), GREEDY, readable
        )
    assert len(verdicts.texts) == 3 and "bad request" in verdicts.open["id0"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [("401", MissingError), ("404", InputError), ("410", InputError)],
)
def test_wrong_key_and_wrong_model_stop_at_once_and_keep_what_was_judged(
    fault, error, tmp_path
):
    store = tmp_path / "judgements.jsonl"
    with OpenAIServer(lambda b: "True", faults=[None] * 3 + [fault] * 99) as server:
        with pytest.raises(
            error,
            match=(
                r"(?s)7 of 10 judgements are left\. What was judged is kept in .*again"
            ),
        ):
            client(server, store, concurrency=1).ask(questions(10), GREEDY, readable)
        server.faults.clear()
        verdicts = client(server, store).ask(questions(10), GREEDY, readable)
    assert verdicts.reused == 3 and set(server.times_served().values()) == {1}


def test_a_missing_key_is_named_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    fireworks = resolve(plugins.load([kits.builtin()]), "fireworks")
    with pytest.raises(MissingError, match="FIREWORKS_API_KEY") as caught:
        JudgeClient(fireworks, None)
    assert caught.value.exit_code == 3


def test_the_key_is_sent_and_reaches_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret-99")
    store = tmp_path / "judgements.jsonl"
    with OpenAIServer(lambda b: "True", key="sk-secret-99") as server:
        monkeypatch.setenv("ALIGN_ALLOWED", f'[["{place(server.url)}", "SOME_KEY"]]')
        verdicts = JudgeClient(judge(server, key="SOME_KEY"), store).ask(
            questions(2), GREEDY, readable
        )
    assert len(verdicts.texts) == 2
    assert all(
        "secret" not in file.read_text()
        for file in tmp_path.rglob("*")
        if file.is_file()
    )


def test_costs_are_estimated_before_and_summed_after_over_all_calls(tmp_path):
    store = tmp_path / "judgements.jsonl"
    said = ["what?"]
    with OpenAIServer(lambda b: said.pop() if said else "True") as server:
        asker = client(server, store, price=2.0, rounds=1)
        before = asker.estimate(questions(3), GREEDY, readable)
        asker.ask(questions(3), GREEDY, readable)
        asker = client(server, store, price=2.0)
        between = asker.estimate(questions(3), GREEDY, readable)
        after = asker.ask(questions(3), GREEDY, readable)
    assert (before.requests, before.output_tokens) == (3, 48) and between.requests == 1
    assert after.output_tokens == 4 * 5 and after.asked == 1
    assert after.dollars == pytest.approx(
        (after.input_tokens + after.output_tokens) * 2e-6
    )


def test_costs_are_unknown_where_the_server_does_not_say_what_it_used():
    with OpenAIServer(lambda b: "True", usage=False) as server:
        assert (
            client(server, None, price=2.0).ask(questions(1), GREEDY, readable).dollars
            is None
        )


@pytest.mark.parametrize(
    "given", [{"max_cost": float("nan")}, {"max_cost": -1.0}, {"price": float("nan")}]
)
def test_a_limit_that_could_never_be_reached_is_refused(given):
    with (
        OpenAIServer(lambda b: "True") as server,
        pytest.raises(InputError, match="expected dollars, 0 or more"),
    ):
        client(server, None, **{"price": 1.0, **given})


def test_the_cost_limit_stops_the_judging_and_the_next_call_goes_on(tmp_path):
    store = tmp_path / "judgements.jsonl"
    with OpenAIServer(lambda b: "True") as server:
        with pytest.raises(
            WorkError, match=r"(?s)before exceeding the limit.*judgements are left"
        ):
            client(server, store, price=1.0, max_cost=0.0003).ask(
                questions(50), GREEDY, readable
            )
        judged = len(server.served)
        verdicts = client(server, store, price=1.0).ask(questions(50), GREEDY, readable)
    assert 0 < judged < 50 and verdicts.reused == judged and len(server.served) == 50


def test_a_judge_without_a_model_name_takes_the_one_that_is_served():
    with OpenAIServer(lambda b: "True") as server:
        asker = JudgeClient(judge(server, model=""), None)
        asker.ask(questions(1), GREEDY, readable)
    assert asker.model == "m" and server.served[0]["model"] == "m"
    with pytest.raises(InputError, match="is the server up"):
        JudgeClient(
            Judge(name="vllm", model="", base_url=server.url), None, timeout=2.0
        )


def test_a_local_judge_answers_in_this_process(tmp_path):
    calls = []

    def create(model):
        def answer(conversations, sampling):
            calls.append((model, len(conversations), sampling["temperature"]))
            return ["True"] * len(conversations)

        return answer

    local = Judge(name="local", model="folder", create=create)
    store = tmp_path / "judgements.jsonl"
    verdicts = JudgeClient(local, store).ask(questions(40), GREEDY, readable)
    assert len(verdicts.texts) == 40 and calls == [
        ("folder", 32, 0.0),
        ("folder", 8, 0.0),
    ]
    assert JudgeClient(local, store).ask(questions(40), GREEDY, readable).asked == 0


def test_names_models_urls_and_prices_are_resolved():
    registry = plugins.load([kits.builtin()])
    default = resolve(registry, "fireworks")
    assert (
        default.model == "accounts/fireworks/models/llama-v3p3-70b-instruct"
        and default.price == 0.90
    )
    other = resolve(
        registry, "fireworks:accounts/x/models/y:z", "http://127.0.0.1:1/v1"
    )
    assert (other.model, other.price, other.base_url) == (
        "accounts/x/models/y:z",
        None,
        "http://127.0.0.1:1/v1",
    )
    assert resolve(registry, "fireworks:y", price=0.2).price == 0.2
    with pytest.raises(PluginError, match="did you mean 'fireworks'"):
        resolve(registry, "firework")
    with pytest.raises(InputError, match="no base URL"):
        resolve(registry, "local", "http://127.0.0.1:1/v1")


def test_the_default_judge_is_the_first_whose_key_is_set(monkeypatch):
    registry = plugins.load([kits.builtin()])
    hosted = [p.value for p in registry.all("judge") if p.value.key]
    for judge in hosted:
        monkeypatch.delenv(judge.key, raising=False)
    assert default_judge(registry) == hosted[0].name  # whose key is then asked for
    for judge in reversed(hosted):
        monkeypatch.setenv(judge.key, "x")
        assert default_judge(registry) == judge.name


@pytest.mark.parametrize(
    ("name", "url", "variable"),
    [
        ("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("together", "https://api.together.ai/v1", "TOGETHER_API_KEY"),
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
        ("vllm", "http://localhost:8000/v1", None),
    ],
)
def test_endpoints_and_key_variables(name, url, variable):
    found = plugins.load([kits.builtin()]).get("judge", name).value
    assert (found.base_url, found.key) == (url, variable)


JUDGING = """
import sys
from pathlib import Path
from alignkit.endpoint.judges import JudgeClient
from alignkit.benchmarks import Judge

url, store, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
questions = [(f"id{i}", [[{"role": "user", "content": f"question {i}"}]]) for i in range(count)]
client = JudgeClient(Judge(name="j", model="m", base_url=url), store, backoff=0.05, concurrency=8, timeout=5.0)
verdicts = client.ask(questions, {"temperature": 0.0}, lambda i, texts: texts[0] in ("True", "False"))
print(len(verdicts.texts), len(verdicts.open))
"""


def recorded(store):
    """The keys in the store whose lines are whole."""
    if not store.is_file():
        return []
    return [json.loads(line)["key"] for line in store.read_bytes().split(b"\n")[:-1]]


def test_two_kills_among_faults_lose_nothing_and_ask_nothing_twice(tmp_path):
    count, store = 200, tmp_path / "judgements.jsonl"
    faults = ("500", "503", "429", "reset", "half", "garbage")
    with OpenAIServer(
        lambda b: "True", fault_rate=0.25, random_faults=faults, latency=0.02
    ) as server:
        command = [sys.executable, "-c", JUDGING, server.url, str(store), str(count)]
        kills = []
        for stage in (60, 130):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while len(recorded(store)) < stage and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kept = set(recorded(store))
            assert stage <= len(kept) < count
            kills.append((kept, len(server.served)))
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [str(count), "0"], done.stderr
    rows = recorded(store)
    assert len(rows) == len(set(rows)) == count
    assert sum(server.faulted.values()) > 30
    # What was answered but not yet written when the kill came: no more than was under
    # way.
    assert len(server.served) - count <= 2 * 8
    key_of = JudgeClient(Judge(name="j", model="m", base_url=server.url), None).key_of
    for kept, served in kills:
        asked_later = {
            key_of(body["messages"], Sampling(temperature=0.0))
            for body in server.served[served:]
        }
        assert kept.isdisjoint(asked_later)
