"""Making data: splits without leakage, distillation that pays once, filters, lengths."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from servers import OpenAIServer

from alignkit.data.distill import Distillation
from alignkit.data.filter import Filter
from alignkit.data.lengths import Lengths, histogram, measure
from alignkit.data.split import normalise, split
from alignkit.endpoint.costs import Budget
from alignkit.engines.base import Sampling
from alignkit.engines.openai import OpenAIEngine
from alignkit.errors import InputError, MissingError, WorkError
from alignkit.types import Prompt

CHAT = Prompt(
    "chat",
    (
        {"role": "user", "content": "{question}"},
        {"role": "assistant", "content": "{response}"},
    ),
)


def questions(count):
    return [{"question": f"question {i}", "truth": str(i)} for i in range(count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $x + 1$?", "what is x+1"),
        ("Find $\\dfrac{1}{2}$.", "Find $\\frac{1}{2}$"),
        ("$\\left( a,\\, b \\right)$", "$(a,b)$"),
        ("He said \u201cno\u201d", 'he said "no"'),
        ("f(6) - f(2) = 12.", "f(6)-f(2)=12"),
        ("\uff11\uff12 apples", "12 apples"),
        ("x \u2212 1 \u2013 y", "x - 1 - y"),
        ("\ufeffsome\u200b\u00adthing", "something"),
    ],
)
def test_copies_of_one_question_are_equal_when_normalised(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("?!", "..."),
        ("x + 1", "x - 1"),
        ("1.5 m", "15 m"),
        ("1 2", "12"),
        ("x < 5", "x > 5"),
        ("\\leftarrow", "\\rightarrow"),
    ],
)
def test_different_questions_stay_different(one, other):
    assert normalise(one) != normalise(other)


def test_no_question_stands_on_both_sides_and_every_row_is_accounted_for():
    rows = [
        {
            "question": (
                f"Is {i % 40} + 1 = {i % 40}?" if i % 2 else f"is {i % 40}+1 = {i % 40}"
            ),
            "n": i,
        }
        for i in range(100)
    ]
    parts = split(rows, validation=10, seed=3)
    sides = [
        {normalise(r["question"]) for r in side}
        for side in (parts.train, parts.validation)
    ]
    assert (
        sides[0].isdisjoint(sides[1]) and len(sides[1]) == len(parts.validation) == 10
    )
    everything = [r["n"] for r in (*parts.train, *parts.validation, *parts.removed)]
    assert sorted(everything) == list(range(100))
    assert all("same question as validation" in r["removed"] for r in parts.removed)


def test_rows_that_stand_in_a_benchmark_are_removed_with_what_they_equal():
    rows = [
        {"question": "What is 2 + 2?"},
        {"question": "What is 3 + 3?"},
        {"question": "5?"},
    ]
    parts = split(
        rows,
        validation=0,
        against={"math500": [{"problem": "x"}, {"problem": "what is $2+2$"}]},
    )
    assert [r["question"] for r in parts.train] == ["What is 3 + 3?", "5?"]
    assert list(parts.removed) == [
        {"question": "What is 2 + 2?", "removed": "same question as row 2 of math500"}
    ]


def test_a_share_and_a_seed_decide_the_validation_set():
    rows = questions(50)
    one, same, other = (
        list(split(rows, validation=0.2, seed=s).validation) for s in (1, 1, 2)
    )
    assert len(one) == 10 and one == same != other


@pytest.mark.parametrize("validation", [50, 60, -1, 1.0e9])
def test_a_validation_set_that_leaves_no_training_rows_is_refused(validation):
    with pytest.raises(InputError, match="validation questions"):
        split(questions(50), validation=validation)


def test_a_question_is_compared_without_the_template_that_it_was_put_in():
    asked = [
        {"problem": "1+1", "prompt": "Solve this: 1+1"},
        {"instruction": "2+2", "prompt": "Do: 2+2"},
    ]
    parts = split(
        asked,
        validation=0,
        against={"bench": [{"problem": "1 + 1"}, {"question": "2 + 2"}]},
    )
    assert len(parts.removed) == 2


def test_messages_are_compared_by_their_contents():
    row = {"prompt": [{"role": "user", "content": "Hi there!"}]}
    assert split(
        [row, {"prompt": "Bye"}], validation=0, against={"b": [{"prompt": "hi there"}]}
    ).removed[0]["prompt"]
    with pytest.raises(InputError, match="expected a text"):
        split([{"answer": "x"}], validation=0)


def engine(server, **options):
    return OpenAIEngine(
        "teacher",
        server.url,
        **{"backoff": 0.01, "server": "other", "reasoning": True, **options},
    )


def distillation(
    server, tmp_path, count=10, samples=1, prompt=CHAT, limit=100, seed=None, **options
):
    sampling = Sampling(temperature=0.6, max_new_tokens=limit, seed=seed)
    return Distillation(
        questions(count),
        prompt,
        engine(server, **options),
        sampling,
        samples,
        tmp_path / "made.jsonl",
    )


def made(tmp_path):
    return [
        json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()
    ]


def echo(body):
    return f"answer to {body['messages'][0]['content']}"


def test_answers_become_rows_in_order_with_the_questions_columns(tmp_path):
    with OpenAIServer(
        lambda b: {"message": {"content": echo(b), "reasoning_content": "hm"}}
    ) as server:
        counts = distillation(server, tmp_path, count=3).run()
    rows = made(tmp_path)
    assert [r["truth"] for r in rows] == ["0", "1", "2"]
    assert rows[0]["response"] == "<think>\nhm\n</think>\n\nanswer to question 0"
    assert rows[0]["prompt"] == [{"role": "user", "content": "question 0"}]
    assert (
        rows[0]["teacher"] == "teacher"
        and rows[0]["finish_reason"] == "stop"
        and rows[0]["tokens"] == 5
    )
    assert (
        counts["asked"],
        counts["finished"],
        counts["left"],
        counts["output_tokens"],
    ) == (3, 3, 0, 15)


def test_a_teachers_answer_does_not_inherit_the_grade_of_the_one_before(tmp_path):
    row = {
        "question": "1+1",
        "truth": "2",
        "response": "2",
        "reward": 1.0,
        "status": "ok",
    }
    with OpenAIServer(lambda body: "3") as server:
        Distillation(
            [row], CHAT, engine(server), Sampling(), 1, tmp_path / "made.jsonl"
        ).run()
    (found,) = made(tmp_path)
    assert found["response"] == "3" and not {"reward", "status"} & set(found)


def test_only_finished_answers_are_kept(tmp_path):
    ends = {
        "question 1": {"finish_reason": "length"},
        "question 2": {"finish_reason": "content_filter"},
    }
    ends["question 3"] = {"text": " \n"}
    with OpenAIServer(
        lambda b: {"text": echo(b)} | ends.get(b["messages"][0]["content"], {})
    ) as server:
        counts = distillation(server, tmp_path, count=5).run()
        again = distillation(server, tmp_path, count=5).run()
    assert [r["truth"] for r in made(tmp_path)] == ["0", "4"]
    assert (counts["finished"], counts["unfinished"], counts["left"]) == (
        2,
        3,
        0,
    ) and again["finished"] == 2
    assert len(server.served) == 5  # what was cut is not paid for again


@pytest.mark.parametrize(
    "reason", ["abort", "insufficient_system_resource", "SAFETY", "MAX_TOKENS"]
)
def test_an_answer_that_the_server_broke_off_is_not_finished(tmp_path, reason):
    with OpenAIServer(
        lambda b: {"text": "half an ans", "finish_reason": reason}
    ) as server:
        counts = distillation(server, tmp_path, count=1).run()
    assert (counts["finished"], counts["unfinished"]) == (0, 1) and made(tmp_path) == []


def test_a_higher_token_limit_asks_again_for_what_was_cut_only(tmp_path):
    def answer(body):
        short = (
            body["max_tokens"] < 200 and body["messages"][0]["content"] == "question 1"
        )
        return {"text": "x", "finish_reason": "length" if short else "stop"}

    with OpenAIServer(answer) as server:
        distillation(server, tmp_path, count=3, limit=100).run()
        counts = distillation(server, tmp_path, count=3, limit=200).run()
    assert counts["finished"] == 3 and len(server.served) == 4


def test_samples_differ_in_their_seeds_and_a_repeated_prompt_is_asked_once(tmp_path):
    with OpenAIServer(echo) as server:
        rows = [*questions(2), {"question": "question 0", "truth": "again"}]
        work = Distillation(
            rows, CHAT, engine(server), Sampling(seed=7), 2, tmp_path / "made.jsonl"
        )
        counts = work.run()
    assert len({b["seed"] for b in server.served}) == 4
    assert counts["asked"] == 4 and counts["repeated"] == 2
    assert [(r["truth"], r["sample"]) for r in made(tmp_path)] == [
        ("0", 0),
        ("0", 1),
        ("1", 0),
        ("1", 1),
    ]


def test_the_cost_limit_keeps_what_was_answered_and_the_next_call_goes_on(tmp_path):
    with OpenAIServer(echo) as server:
        with pytest.raises(WorkError, match=r"(?s)before exceeding the limit.*go on"):
            distillation(
                server, tmp_path, count=40, budget=Budget(0.0005, 1.0), concurrency=2
            ).run()
        first = len(server.served)
        assert 0 < first < 40 and len(made(tmp_path)) == first
        work = distillation(server, tmp_path, count=40)
        assert work.estimate().requests == 40 - first
        work.run()
    assert len(server.served) == 40 == len(made(tmp_path)) and set(
        server.times_served().values()
    ) == {1}


def test_answers_of_one_api_are_not_taken_for_those_of_another(tmp_path):
    plain = Prompt("plain", "Q {question}")
    with OpenAIServer(
        lambda body: "chatted" if "messages" in body else "completed"
    ) as server:
        distillation(server, tmp_path, count=1, prompt=plain, api="chat").run()
        distillation(server, tmp_path, count=1, prompt=plain, api="completions").run()
    assert [row["response"] for row in made(tmp_path)] == ["completed"]


def test_a_batch_that_may_cost_more_than_the_limit_is_not_written(tmp_path):
    with OpenAIServer(echo) as server:
        work = distillation(server, tmp_path, count=6, budget=Budget(0.0005, 1.0))
        with pytest.raises(
            WorkError, match=r"may cost more than the limit of \$0.0005: 6 requests"
        ):
            work.write_requests(tmp_path / "requests.jsonl")
        assert not (tmp_path / "requests.jsonl").exists()
        assert (
            distillation(
                server, tmp_path, count=6, budget=Budget(0.001, 1.0)
            ).write_requests(tmp_path / "r")
            == 6
        )


def test_a_missing_key_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    monkeypatch.setenv("ALIGN_ALLOWED", '[["api.example:443", "TEACHER_KEY"]]')
    elsewhere = SimpleNamespace(url="https://api.example/v1")
    with pytest.raises(MissingError, match="TEACHER_KEY"):
        distillation(elsewhere, tmp_path, key_variable="TEACHER_KEY").run()


def test_batch_files_are_written_and_their_results_taken(tmp_path):
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    with OpenAIServer(echo) as server:
        work = distillation(server, tmp_path, count=6)
        assert work.write_requests(requests) == 6 and server.requests == 0
        lines = [json.loads(line) for line in requests.read_text().splitlines()]
        assert all(set(r) == {"custom_id", "method", "url", "body"} for r in lines)
        assert (
            len({r["custom_id"] for r in lines}) == 6
            and max(len(r["custom_id"]) for r in lines) <= 64
        )
        assert (
            lines[0]["url"] == "/v1/chat/completions"
            and lines[0]["body"]["max_tokens"] == 100
        )

        def answer(text, reason="stop"):
            choice = {"message": {"content": text}, "finish_reason": reason}
            return {
                "choices": [choice],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2},
            }

        ids = [r["custom_id"] for r in lines]
        rows = [
            {
                "custom_id": ids[1],
                "response": {"status_code": 200, "body": answer("B")},
                "error": None,
            },
            # the bare answer, as some providers write it
            {"custom_id": ids[0], "response": answer("A")},
            {
                "custom_id": ids[2],
                "response": {"status_code": 500, "body": {}},
                "error": None,
            },
            {"custom_id": ids[3], "response": None, "error": {"code": "expired"}},
            {"custom_id": ids[4], "response": answer("cut", "length")},
            {"custom_id": "of another file", "response": answer("Z")},
            {"custom_id": ["x"], "response": answer("Z")},
        ]
        results.write_text("\n".join(json.dumps(r) for r in rows) + '\n{"torn\n[7]\n')
        counts = work.read_results(results)
        assert counts.pop("refused") == 0
        assert counts == {"taken": 3, "failed": 2, "unreadable": 3, "unknown": 1}
        written = work.write()
        assert (
            written["finished"],
            written["input_tokens"],
            written["output_tokens"],
        ) == (2, 9, 6)
        assert [r["response"] for r in made(tmp_path)] == ["A", "B"]
        # the failed and the unanswered
        assert distillation(server, tmp_path, count=6).write_requests(requests) == 3
    with pytest.raises(InputError, match="No such file"):
        work.read_results(tmp_path / "none.jsonl")


DISTILLING = """
import sys
from pathlib import Path
from alignkit.engines.base import Sampling
from alignkit.engines.openai import OpenAIEngine
from alignkit.data.distill import Distillation
from alignkit.types import Prompt

prompt = Prompt("chat", ({"role": "user", "content": "{question}"},))
rows = [{"question": f"question {i}"} for i in range(120)]
engine = OpenAIEngine("m", sys.argv[1], server="other", backoff=0.05, concurrency=8, timeout=5.0)
print(Distillation(rows, prompt, engine, Sampling(), 1, Path(sys.argv[2])).run()["finished"])
"""


def test_a_kill_among_faults_loses_nothing_and_asks_nothing_twice(tmp_path):
    out, store = tmp_path / "made.jsonl", tmp_path / "made.answers.jsonl"

    def stored():
        return store.read_bytes().count(b"\n") if store.is_file() else 0

    with OpenAIServer(echo, fault_rate=0.25, latency=0.02) as server:
        command = [sys.executable, "-c", DISTILLING, server.url, str(out)]
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while stored() < 50 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert 50 <= stored() < 120
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "120", done.stderr
    assert (
        stored() == 120 == len({row["prompt"][0]["content"] for row in made(tmp_path)})
    )
    assert len(server.served) - 120 <= 8  # those under way


def test_a_filter_counts_the_first_rule_each_row_failed():
    rows = [
        {"question": "a", "response": "x", "reward": 1.0, "finish_reason": "stop"},
        {"question": "a ", "response": "X.", "reward": 1.0, "finish_reason": "stop"},
        {"question": "b", "response": "x", "reward": 0.0, "finish_reason": "stop"},
        {"question": "c", "response": "x", "reward": 1.0, "finish_reason": "length"},
        {"question": "d", "response": "y", "reward": 1.0, "finish_reason": "stop"},
        {
            "question": "e",
            "response": "z",
            "reward": 0.0,
            "status": "timeout",
            "finish_reason": "stop",
        },
    ]
    rules = Filter(
        min_reward=1.0, finish_reasons=("stop",), max_tokens=9, duplicates="both"
    )
    kept = list(rules.apply(rows, tokens=[1, 1, 1, 1, 10, 1]))
    assert kept == [rows[0]]
    assert rules.dropped == {
        "duplicate": 1,
        "reward below 1": 1,
        "finish reason length": 1,
        "longer than 9 tokens": 1,
        "not graded (timeout)": 1,
    }


@pytest.mark.parametrize(
    ("by", "kept"),
    [
        ("question", [0, 2]),
        ("response", [0, 1]),
        ("both", [0, 1, 2]),
        ("keep", [0, 1, 2, 3]),
    ],
)
def test_duplicates_are_told_by_question_response_or_both(by, kept):
    pairs = [("q", "a"), ("q", "b"), ("r", "a"), ("Q?", "A")]
    rows = [{"question": q, "response": r, "n": n} for n, (q, r) in enumerate(pairs)]
    assert [r["n"] for r in Filter(duplicates=by).apply(rows)] == kept


def test_a_filter_names_the_column_that_is_missing():
    with pytest.raises(InputError, match=r"row 2 has no 'reward'.*it has response"):
        list(Filter(min_reward=1.0).apply([{"reward": 1.0}, {"response": "x"}]))


@pytest.mark.parametrize("reward", [None, float("nan"), "1"])
def test_a_reward_that_is_no_number_is_not_enough(reward):
    assert not list(Filter(min_reward=0.0).apply([{"reward": reward}]))


def test_percentiles_are_by_nearest_rank():
    assert Lengths.of(list(range(1, 101))).percentiles == {
        50: 50,
        90: 90,
        95: 95,
        99: 99,
    }
    assert Lengths.of([7]).percentiles == {50: 7, 90: 7, 95: 7, 99: 7}


@pytest.mark.parametrize("values", [[5], [1, 1, 1], [3, 40, 41, 900], list(range(100))])
def test_a_histogram_covers_every_value_once(values):
    bins = histogram(values)
    assert sum(count for _, _, count in bins) == len(values) and len(bins) <= 12
    assert all(
        count == sum(low <= v <= high for v in values) for low, high, count in bins
    )
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(bins))


def test_what_a_limit_drops_and_cuts_is_counted():
    result = measure([10, 80, 20], [20, 10, 100], limits=[100])
    assert result["limits"] == {100: {"dropped": 1, "cut": 1, "tokens_lost": 20}}
    assert (
        result["lengths"]["total"].longest == 120
        and result["suggested_max_length"] == 120
    )
    assert "response" not in measure([1, 2], None, limits=[])["lengths"]


def test_a_file_that_holds_no_answers_is_named(tmp_path):
    (tmp_path / "made.answers.jsonl").write_text('{"question": "a"}\n')
    with (
        OpenAIServer(lambda body: "x") as server,
        pytest.raises(InputError, match=r"answers.jsonl:1: no answer"),
    ):
        distillation(server, tmp_path)
