"""The ledger of paid answers: read again whatever wrote it, and never torn."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import OpenAIServer

from alignkit.benchmarks import Judge
from alignkit.data.distill import Distillation
from alignkit.endpoint.costs import Budget
from alignkit.endpoint.judges import JudgeClient
from alignkit.endpoint.ledger import Ledger
from alignkit.endpoint.openai import OpenAIClient
from alignkit.errors import InputError
from alignkit.run import lock
from alignkit.sampling import Completion, Sampling
from alignkit.types import Prompt

# As alignkit 0.1 wrote them, for the requests below.
JUDGEMENT = {
    "key": "746d0eef97fb80e6b8c296a4bb8a1315af067c8a9814484bf3da65b98c53c2c8",
    "model": "m",
    "text": "True",
    "finish_reason": "stop",
    "usage": [11, 5],
    "time": 1763000000.5,
}
ANSWER = {
    "key": "fa695099b18a69fb604f6690244d2a0c7b29d7d98fe8d4983178ec4c0ae44ab7",
    "response": "two",
    "finish_reason": "stop",
    "tokens": 5,
    "usage": [9, 5],
    "max_new_tokens": 100,
}
CUT = {
    **ANSWER,
    "key": "33850461a58734d293052f0ae741516c19ac503f83ec12baab060ae708e78ff0",
    "finish_reason": "length",
}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def keep(ledger, key, text="text", usage=(3, 2)):
    return ledger.keep(key, 10, "m", Completion(text, "stop", 2), usage)


def test_a_file_of_judgements_of_0_1_is_read_and_none_is_paid_for_again(tmp_path):
    store = tmp_path / "judgements.jsonl"
    store.write_text(lines(JUDGEMENT))
    asked = [("a", [[{"role": "user", "content": "is it safe?"}]])]
    with OpenAIServer(lambda body: "False") as server:
        judge = Judge(name="j", model="m", base_url=server.url, price=1.0)
        verdicts = JudgeClient(judge, store).ask(
            asked, {"temperature": 0.0, "max_new_tokens": 16}, lambda id_, texts: True
        )
        assert server.requests == 0
    assert verdicts.texts == {"a": ("True",)} and verdicts.reused == 1
    assert verdicts.dollars == pytest.approx(16e-6)


def distillation(server, folder, limit):
    return Distillation(
        [{"question": "1+1"}, {"question": "2+2"}],
        Prompt("chat", ({"role": "user", "content": "{question}"},)),
        OpenAIClient("m", server.url, server="other", reasoning=True),
        Sampling(temperature=0.6, max_new_tokens=limit, seed=3),
        1,
        folder / "made.jsonl",
    )


def test_a_file_of_answers_of_0_1_is_read_and_none_is_paid_for_again(tmp_path):
    (tmp_path / "made.answers.jsonl").write_text(lines(ANSWER, CUT))
    with OpenAIServer(lambda body: "four") as server:
        counts = distillation(server, tmp_path, limit=100).run()
        assert (counts["finished"], counts["unfinished"]) == (1, 1)
        assert server.requests == 0
        # with more room, the one that was cut is worth another try
        counts = distillation(server, tmp_path, limit=200).run()
        assert counts["finished"] == 2 and server.requests == 1
    rows = [json.loads(x) for x in (tmp_path / "made.jsonl").read_text().splitlines()]
    assert [row["response"] for row in rows] == ["two", "four"]


def test_an_answer_is_in_the_file_before_anything_is_told_of_it(tmp_path):
    path = tmp_path / "ledger.jsonl"
    seen = []
    with OpenAIServer(lambda body: "x") as server:
        ledger = Ledger(path, Budget(None, None))
        client = OpenAIClient("m", server.url, server="other")
        bodies = {
            text: client.body([{"role": "user", "content": text}], Sampling())
            for text in ("a", "b", "c")
        }
        ledger.ask(
            client,
            "/chat/completions",
            bodies,
            (),
            lambda answer: seen.append(
                answer in Ledger(path, Budget(None, None)).answers(answer.key)
            ),
        )
    assert seen == [True] * 3


def test_all_answers_to_a_request_are_kept_oldest_first(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, Budget(None, 1.0))
    first, second = keep(ledger, "k", "one"), keep(ledger, "k", "two")
    for known in (ledger, Ledger(path, Budget(None, 1.0))):
        assert list(known.answers("k")) == [first, second]
        assert known.answers("other") == ()
        assert known.spent(["k", "other"])[2] == pytest.approx(10e-6)


@pytest.mark.parametrize(
    ("price", "usages", "dollars"),
    [
        (None, [(3, 2)], None),
        (2.0, [(3, 2), (1, 0)], 12e-6),
        (2.0, [(3, 2), None], None),  # a server did not say what it used
        (0.0, [None], 0.0),
        (2.0, [], 0.0),
    ],
)
def test_what_was_spent_is_said_only_where_it_is_known(price, usages, dollars):
    ledger = Ledger(None, Budget(None, price))
    for number, usage in enumerate(usages):
        keep(ledger, str(number), usage=usage)
    spent = ledger.spent([str(number) for number in range(len(usages))])
    assert spent[2] == (None if dollars is None else pytest.approx(dollars))


@pytest.mark.parametrize("lacking", ["key", "text", "finish_reason"])
def test_a_row_that_is_no_answer_is_named_with_its_line(lacking, tmp_path):
    path = tmp_path / "judgements.jsonl"
    row = {name: value for name, value in JUDGEMENT.items() if name != lacking}
    path.write_text(lines(JUDGEMENT, row))
    with pytest.raises(InputError, match=r"judgements.jsonl:2: no answer"):
        Ledger(path, Budget(None, None))


APPENDING = """
import sys
from pathlib import Path
from alignkit.endpoint.costs import Budget
from alignkit.endpoint.ledger import Ledger
from alignkit.sampling import Completion

ledger = Ledger(Path(sys.argv[1]), Budget(None, None))
for number in range(60):
    # longer than what one write call of a buffered file hands over
    text = f"{sys.argv[2]} {number} " * 9000
    ledger.keep(f"{sys.argv[2]}-{number}", 10, "m", Completion(text, "stop", 2), None)
"""


def test_two_processes_append_to_one_ledger_and_neither_loses_an_answer(tmp_path):
    path = tmp_path / "judgements.jsonl"
    command = [sys.executable, "-c", APPENDING, str(path)]
    names = ("a", "b", "c")
    processes = [subprocess.Popen([*command, name]) for name in names]
    assert [process.wait(timeout=120) for process in processes] == [0] * 3
    ledger = Ledger(path, Budget(None, None))
    for name in names:
        for number in range(60):
            (answer,) = ledger.answers(f"{name}-{number}")
            assert answer.text == f"{name} {number} " * 9000


def test_an_answer_waits_for_another_process_that_is_in_the_midst_of_its_line(tmp_path):
    path = tmp_path / "judgements.jsonl"
    begun, rest = lines(JUDGEMENT)[:50], lines(JUDGEMENT)[50:]
    path.write_text(begun)
    ledger = Ledger(path, Budget(None, None))
    with ThreadPoolExecutor(1) as pool:
        with lock(path), path.open("a") as file:
            kept = pool.submit(keep, ledger, "other")
            time.sleep(0.2)
            assert not kept.done() and path.read_text() == begun
            file.write(rest)
        kept.result(timeout=30)
    both = Ledger(path, Budget(None, None))
    assert both.answers(JUDGEMENT["key"]) and both.answers("other")
