"""Distillation that trains what it should: the prompt's form, refusals, parameters."""

import json
from pathlib import Path

import pytest
from servers import OpenAIServer

from alignkit.cli import main
from alignkit.data.form import Form
from alignkit.types import Prompt

R1 = Prompt("r1", "Think in <think> </think> <answer> </answer>.\n{question}\n<think>")
THOUGHT = "one and one\nis two"


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["data", *map(str, arguments)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


def questions(count):
    rows = [
        {"question": f"What is {n}+{n}?", "truth": str(2 * n)} for n in range(count)
    ]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def number(body):
    return int(body["messages"][-1]["content"].rpartition("What is ")[2].split("+")[0])


def made():
    return [json.loads(line) for line in Path("made.jsonl").read_text().splitlines()]


def distill(align, server, *more, prompt="r1_zero"):
    return align(
        "distill", "q.jsonl", "--out", "made.jsonl", "--teacher", "vllm:m", "--api", "chat",
        "--base-url", server.url, *(("--prompt", prompt) if prompt else ()), *more,
    )  # fmt: skip


# Ways in which a reasoning teacher gives a right answer to a prompt that ends in <think>.
WAYS = {
    "thinks again": "<think>\n{t}\n</think>\n\n<answer>{n}</answer>",
    "apart": ("{t}", "<answer> {n} </answer>"),
    "apart, and as it was told": ("{t}", "so it is</think> <answer>{n}</answer>"),
    "apart, and thinks again": ("{t}", "<think>again</think>\n<answer>{n}</answer>"),
    "as it was told": "{t} </think> <answer> {n} </answer>",
    "no space": "<think>{t}</think><answer>{n}</answer>\n\nI hope this helps!",
    "words between": "<think>{t}</think>\n\nAdding gives:\n\n<answer>{n}</answer>",
    "a box": "<think>{t}</think>\n\n**Sum.** It is $\\boxed{{{n}}}$.",
}


def answered(way, n):
    text = WAYS[way]
    if isinstance(text, str):
        return {"text": text.format(t=THOUGHT, n=n)}
    thought, content = (part.format(t=THOUGHT, n=n) for part in text)
    return {"message": {"content": content, "reasoning_content": thought}}


def test_every_right_answer_of_a_reasoning_teacher_is_kept_by_the_recipes_reward(align):
    ways = list(WAYS)
    questions(len(ways))
    with OpenAIServer(lambda b: answered(ways[number(b)], 2 * number(b))) as server:
        code, out, err = distill(align, server)
    assert code == 0, err
    assert "normalised: 7 x went on with the thought" in out
    for row in made():
        assert row["prompt"].endswith("<think>")
        assert (
            row["response"].count("</think>") == 1 and "<think>" not in row["response"]
        )
        assert THOUGHT in row["response"]
    code, out, _ = align(
        "filter", "made.jsonl", "--reward", "drgrpo", "--out", "k.jsonl"
    )
    assert code == 0 and f"{len(ways)} of {len(ways)} rows kept" in out


@pytest.mark.parametrize("way", WAYS)
def test_what_is_in_form_is_not_changed_again(way):
    choice = answered(way, 4)
    text = choice.get("text")
    if text is None:
        message = choice["message"]
        text = (
            f"<think>\n{message['reasoning_content']}\n</think>\n\n{message['content']}"
        )
    form = Form.of(R1, R1.template)
    once, changed = form.applied(text)
    assert form.holds(once) and form.applied(once) == (once, [])
    assert bool(changed) == (way != "as it was told")
    # nothing but tags, spaces and what follows the answer goes
    words = once.replace("</think>", " ").replace("<answer>", " ").split()
    assert set(THOUGHT.split()) <= set(words)


def test_a_chat_prompt_keeps_the_teachers_own_form():
    form = Form.of(Prompt("chat", ({"role": "user", "content": "{q}"},)), [
        {"role": "user", "content": "q"}
    ])  # fmt: skip
    text = "<think>\nhm\n</think>\n\n<answer>4</answer> and more"
    assert form.applied(text) == (text, [])
    twice = "<think>\na\n</think>\n\n<think>b</think>\n\n4"
    assert form.applied(twice) == ("<think>a\n\nb\n</think>\n\n4", ["merged"])


def test_a_prompts_own_spacing_is_taken():
    prompt = Prompt("p", "Write <think>…</think>\n<answer>…</answer>. {q}\n<think>\n")
    form = Form.of(prompt, "q\n<think>\n")
    assert (
        form.applied("a</think> <answer>4</answer>")[0]
        == "a</think>\n<answer>4</answer>"
    )


def test_an_answer_out_of_form_is_left_counted_and_told(align):
    questions(2)
    texts = ["I think it is 0.", "<think>hm</think> Zero!"]
    with OpenAIServer(lambda b: texts[number(b)]) as server:
        code, out, _ = distill(align, server)
    assert code == 0 and "2 are not in the form that the prompt begins" in out
    assert [row["response"] for row in made()] == [
        "I think it is 0.",
        "hm</think> Zero!",
    ]


@pytest.mark.parametrize(
    "text", ["<think>\nhm\n</think>\n\n", "<think>\nwithout an end"]
)
def test_a_thought_without_an_answer_is_no_answer(align, text):
    questions(1)
    with OpenAIServer(lambda b: text) as server:
        _, out, _ = distill(align, server)
    assert made() == [] and "1 cut or empty" in out


def bad(body):
    n = number(body)
    return "flagged by the content filter" if n % 3 == 0 else ""


def test_refused_requests_are_settled_counted_apart_and_not_asked_twice(align):
    questions(40)  # more refusals in a row than a whole server is given up for
    with OpenAIServer(lambda b: "x", refuses=bad) as server:
        code, out, err = distill(align, server, prompt="chat")
        assert code == 0, err
        assert "26 of 40 answers finished" in out and "14 were refused for good" in out
        assert "14 x flagged by the content filter" in out and "0 not answered" in out
        asked = server.requests
        code, out, _ = distill(align, server, "--json", prompt="chat")
        told = json.loads(out)
        assert server.requests == asked == 40
        assert (told["finished"], told["refused"], told["unfinished"]) == (26, 14, 0)
    assert len(made()) == 26
    # another limit may pass: what was refused before is asked last
    seen = []
    with OpenAIServer(lambda b: seen.append(number(b)) or "x") as server:
        questions(43)
        more = ("--max-new-tokens", 99, "--concurrency", 1)
        distill(align, server, *more, prompt="chat")
    assert seen == [40, 41, 42, *range(0, 40, 3)] and len(made()) == 43


def test_a_refusal_in_the_answer_is_no_training_row(align):
    questions(2)

    def answer(body):
        told = {"content": None, "refusal": "I cannot help with that."}
        return {"message": told} if number(body) else "0"

    with OpenAIServer(answer) as server:
        _, out, _ = distill(align, server, prompt="chat")
    assert [row["response"] for row in made()] == ["0"]
    assert "1 x I cannot help with that." in out


def test_refusals_of_a_batch_are_settled(align):
    questions(3)
    base = ("distill", "q.jsonl", "--out", "made.jsonl", "--teacher", "vllm:m")
    url = ("--base-url", "http://127.0.0.1:9/v1")
    assert align(*base, *url, "--write-batch", "b.jsonl")[0] == 0
    keys = [
        json.loads(line)["custom_id"]
        for line in Path("b.jsonl").read_text().splitlines()
    ]
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    filtered = {"error": {"code": "content_filter", "message": "filtered"}}
    results = [
        {"custom_id": keys[0], "response": {"status_code": 400, "body": filtered}},
        {"custom_id": keys[1], "error": filtered["error"]},
        {"custom_id": keys[2], "response": {"choices": [choice]}},
    ]
    Path("r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    _, out, _ = align(*base, *url, "--read-batch", "r.jsonl", "--json")
    told = json.loads(out)
    assert told["batch"]["refused"] == 2 == told["refused"] and told["left"] == 0
    _, out, _ = align(*base, *url, "--write-batch", "b.jsonl")
    assert "0 requests" in out


def test_parameters_that_the_server_refused_stand_in_the_rows(align):
    questions(2)

    def refuses(body):
        if "top_p" in body:
            return "`temperature` and `top_p` cannot both be specified"
        return ""

    with OpenAIServer(lambda b: "x", refuses=refuses) as server:
        code, out, err = distill(align, server, prompt="chat")
    assert code == 0, err
    notice = "top_p (0.95) is left out: the server takes its own"
    assert [row["adapted"] for row in made()] == [[notice]] * 2 and notice in out
    ledger = Path("made.answers.jsonl").read_text().splitlines()
    assert all(json.loads(line)["adapted"] == [notice] for line in ledger)


def test_a_conversation_is_asked_as_it_is(align):
    talk = [("user", "Hi"), ("assistant", "Hello"), ("user", "What is 1+1?")]
    messages = [{"role": role, "content": text} for role, text in talk]
    Path("q.jsonl").write_text(json.dumps({"messages": messages, "truth": "2"}))
    with OpenAIServer(lambda b: "2") as server:
        code, _, err = distill(align, server, prompt=None)
        assert code == 0 and server.served[0]["messages"] == messages, err
    assert made()[0]["prompt"] == messages and made()[0]["response"] == "2"
