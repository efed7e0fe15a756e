"""One reader for every file of rows: formats, conversations, faults with their place,
and memory that does not grow with the file.
"""

import gzip
import json
import tracemalloc
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from alignkit import json_text, kits, plugins
from alignkit.cli import main
from alignkit.data import read_rows
from alignkit.data.conversations import flattened
from alignkit.data.files import file_rows, read_file
from alignkit.errors import InputError
from alignkit.models import build_tokenizer

MADE = [
    {"question": "1 + 1?", "response": "It is \\boxed{2}", "truth": "2"},
    {"question": "2 + 2?\n(now)", "response": "\u2028 \\boxed{4} é", "truth": "4"},
    {"question": "3 + 3?", "response": "x" * 200_000 + " \\boxed{7}", "truth": "6"},
]


def lines(rows=MADE):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(sign):
    def field(text):
        return '"' + text.replace('"', '""') + '"'

    rows = [list(MADE[0]), *(list(row.values()) for row in MADE)]
    return "".join(sign.join(map(field, row)) + "\n" for row in rows)


def parquet(path, rows=MADE):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.read_bytes()


def forms(folder):
    """{file name: bytes} of the same rows."""
    text = lines()
    found = {
        "a.jsonl": text,
        "a.ndjson": text,
        "windows.jsonl": text.replace("\n", "\r\n"),
        "blank.jsonl": "\n" + text.replace("\n", "\n  \n"),
        "no_end.jsonl": text.rstrip("\n"),
        "list.jsonl": json.dumps(MADE),
        "pretty.jsonl": json.dumps(MADE, indent=2),
        "a.json": json.dumps(MADE, ensure_ascii=False),
        "lines.json": text,
        "a.csv": table(","),
        "a.tsv": table("\t"),
    }
    found = {name: text.encode() for name, text in found.items()}
    found["a.parquet"] = parquet(folder / "p")
    mark = b"\xef\xbb\xbf"
    marked = {f"bom_{n}": mark + raw for n, raw in found.items() if "parquet" not in n}
    packed = {f"{name}.gz": gzip.compress(raw) for name, raw in found.items()}
    return {**found, **marked, **packed, "unnamed.jsonl": packed["a.jsonl.gz"]}


def test_every_form_of_a_file_holds_the_same_rows(tmp_path):
    for name, raw in forms(tmp_path).items():
        (tmp_path / name).write_bytes(raw)
        assert read_file(tmp_path / name) == MADE, name


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_DATA", raising=False)
    build_tokenizer("bytes", 512).save_pretrained(tmp_path / "tokenizer")

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


COUNTING = {
    "stats": ["data", "stats", "FILE", "--tokenizer", "tokenizer", "--prompt", "chat"],
    "show": ["data", "show", "FILE", "--tokenizer", "tokenizer", "--prompt", "r1_zero"],
    "split": ["data", "split", "FILE", "--out", "parts", "--validation", "1"],
    "filter": ["data", "filter", "FILE", "--out", "kept.jsonl", "--reward", "math"],
    "grade": ["grade", "FILE", "--reward", "math"],
    "eval": ["eval", "math", "--responses", "FILE", "--out", "e", "--no-resume"],
    "distill": ["data", "distill", "FILE", "--out", "made.jsonl", "--write-batch", "b"],
}
SHORT = [{**row, "response": row["response"][-30:]} for row in MADE]


def told(command, align, name):
    """What a command says of a file, but for its name and times."""
    arguments = [name if a == "FILE" else a for a in COUNTING[command]]
    if command == "stats":  # a template for texts
        arguments[-1] = "question_only"
    code, out, err = align(*arguments, "--json")
    assert code == 0, (command, name, err)
    found = json.loads(out) if out.startswith(("{", "[")) else out
    if command == "grade":
        return {k: found["rewards"]["math"][k] for k in ("n", "accuracy", "status")}
    if command == "eval":
        found = found[0] if isinstance(found, list) else found
        return {k: found[k] for k in ("n", "status", "value") if k in found}
    return found


@pytest.mark.parametrize("command", COUNTING)
def test_every_command_reads_every_format(align, tmp_path, command):
    write = {
        "a.jsonl": lambda p: p.write_text(lines(SHORT)),
        "b.jsonl": lambda p: p.write_text("\ufeff" + json.dumps(SHORT)),
        "c.json": lambda p: p.write_text(json.dumps(SHORT, indent=1)),
        "d.parquet": lambda p: parquet(p, SHORT),
        "e.jsonl.gz": lambda p: p.write_bytes(gzip.compress(lines(SHORT).encode())),
    }
    seen = []
    for name, make in write.items():
        make(tmp_path / name)
        seen.append(told(command, align, name))
    assert all(one == seen[0] for one in seen), (command, seen)


TALK = [("human", "What is 1 + 1?"), ("gpt", "It is \\boxed{2}")]
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def sharegpt(turns):
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


def chat(turns, **more):
    return {
        "messages": [{"role": ROLES[who], "content": text} for who, text in turns],
        **more,
    }


def test_messages_and_sharegpt_become_the_same_prompt_and_response():
    expected = {
        "prompt": [{"role": "user", "content": "What is 1 + 1?"}],
        "question": "What is 1 + 1?",
        "response": "It is \\boxed{2}",
    }
    assert flattened(chat(TALK)) == flattened(sharegpt(TALK)) == expected
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 + 1?"}]
    row = chat(TALK)
    row["messages"][0]["content"] = parts
    row["messages"][1]["tool_calls"] = None  # as Parquet fills in
    assert flattened(row) == expected


def test_of_several_turns_all_but_the_last_answer_are_the_prompt():
    turns = [("system", "Be short."), *TALK, ("human", "Sure?"), ("gpt", "Yes.")]
    row = flattened(chat(turns, truth="2", id=7))
    assert [m["role"] for m in row["prompt"]] == ["system", "user", "assistant", "user"]
    assert (row["response"], row["truth"], row["id"]) == ("Yes.", "2", 7)
    assert "question" not in row and "messages" not in row
    apart = {**sharegpt(turns[1:]), "system": "Be short."}
    assert flattened(apart)["prompt"] == row["prompt"]


def test_a_conversation_without_an_answer_is_a_question_and_a_thought_is_kept():
    assert flattened(chat(TALK[:1], truth="2")) == {
        "prompt": [{"role": "user", "content": "What is 1 + 1?"}],
        "question": "What is 1 + 1?",
        "truth": "2",
    }
    row = chat(TALK)
    row["messages"][1]["reasoning_content"] = "hm"
    assert flattened(row)["response"] == "<think>\nhm\n</think>\n\nIt is \\boxed{2}"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "a", "response": "b", "messages": [{"role": "robot"}]},
        {"question": "a", "truth": "b"},
        {"messages": "a text", "response": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "messages": []},
    ],
)
def test_a_row_that_has_its_columns_is_left_as_it_is(row):
    assert flattened(dict(row)) == row


CALL = [{"id": "1", "function": {"name": "add", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "assistant", "content": None, "tool_calls": CALL}, "tool_calls"),
        ({"role": "assistant", "content": "x", "function_call": {"n": 1}}, "function_"),
        ({"role": "tool", "content": "4"}, "`tool`"),
        ({"from": "observation", "value": "4"}, "`observation`"),
        ({"from": "function_call", "value": "{}"}, "`function_call`"),
        ({"role": "assistant", "content": None}, "no text: None"),
        ({"role": "assistant", "content": 5}, "no text: 5"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "image_url"),
        ({"role": "narrator", "content": "x"}, "role 'narrator'"),
        ("a text", "is a str; expected an object"),
    ],
)
def test_what_is_no_text_of_a_conversation_is_refused_by_its_line(
    align, tmp_path, message, says
):
    row = {"messages": [{"role": "user", "content": "q"}, message]}
    (tmp_path / "a.jsonl").write_text(lines([chat(TALK), row]))
    for command in ("split", "filter", "stats"):
        arguments = ["a.jsonl" if a == "FILE" else a for a in COUNTING[command]]
        code, _, err = align(*arguments)
        assert code == 2 and "a.jsonl:2: message 2 " in err and says in err, err
    row = {**chat(TALK), "tools": [{"name": "add"}]}
    with pytest.raises(InputError, match="has `tools`"):
        flattened(row)


ANSWER = {"role": "assistant", "content": "2"}
QUESTION = {"role": "user", "content": "1+1?"}


@pytest.mark.parametrize(
    ("more", "prompt"),
    [
        ({}, {"prompt": [QUESTION], "question": "1+1?"}),
        ({"prompt": "1+1?"}, {"prompt": "1+1?"}),
        ({"question": "1+1?"}, {"question": "1+1?"}),
    ],
)
def test_a_preference_of_messages_becomes_texts(more, prompt):
    other = {"role": "assistant", "content": "3", "reasoning_content": "hm"}
    row = {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, other], "id": 4, **more}
    texts = {"chosen": "2", "rejected": "<think>\nhm\n</think>\n\n3", "id": 4}
    assert flattened(row) == {**texts, **prompt}
    explicit = {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [ANSWER]}
    assert flattened(explicit) == {"prompt": [QUESTION], "chosen": "2", "rejected": "2"}


def test_several_turns_before_a_preference_are_its_prompt():
    before = [QUESTION, ANSWER, {"role": "user", "content": "Sure?"}]
    row = {"prompt": "1+1?", "chosen": [*before, ANSWER], "rejected": [*before, ANSWER]}
    assert flattened(row) == {"prompt": before, "chosen": "2", "rejected": "2"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "says"),
    [
        ([QUESTION, ANSWER], [{**QUESTION, "content": "x"}, ANSWER], "other questions"),
        ([QUESTION], [ANSWER], "`chosen` does not end with an answer"),
        ([], [ANSWER], "`chosen` does not end with an answer"),
        (
            [ANSWER],
            [{**ANSWER, "tool_calls": CALL}],
            "`rejected`: message 1 has `tool_",
        ),
    ],
)
def test_sides_of_a_preference_that_cannot_be_texts_are_refused(chosen, rejected, says):
    with pytest.raises(InputError, match=says):
        flattened({"chosen": chosen, "rejected": rejected})


@pytest.mark.parametrize("dataset", ["smoltalk", "instructions", "ultrafeedback"])
def test_data_sets_of_conversations_drop_no_tool_call(tmp_path, dataset):
    registry = plugins.load([kits.builtin()])
    talk = [QUESTION, {**ANSWER, "tool_calls": CALL}]
    row = {"messages": talk, "prompt": "1+1?", "chosen": talk, "rejected": talk}
    (tmp_path / "rows.jsonl").write_text(lines([row]))
    load = registry.get("dataset", dataset).value.load
    with pytest.raises(InputError, match="row 1: message 2 has `tool_calls`"):
        list(load(path=str(tmp_path / "rows.jsonl")))


def test_conversations_are_graded_split_and_measured(align, tmp_path):
    rows = [chat(TALK, answer="2"), {**sharegpt(TALK), "truth": "3"}]
    (tmp_path / "a.jsonl").write_text(lines(rows))
    code, out, _ = align("grade", "a.jsonl", "--reward", "math", "--json")
    assert code == 0
    assert json.loads(out)["rewards"]["math"]["status"] == {"ok": 1, "wrong": 1}
    code, out, err = align(
        "data",
        "stats",
        "a.jsonl",
        "--tokenizer",
        "tokenizer",
        "--prompt",
        "r1_zero",
        "--json",
    )
    assert code == 0 and json.loads(out)["rows"] == 2, err
    code, _, _ = align("data", "split", "a.jsonl", "--out", "p", "--validation", 0)
    kept = [json.loads(line) for line in Path("p/train.jsonl").read_text().splitlines()]
    assert code == 0 and [row["response"] for row in kept] == ["It is \\boxed{2}"] * 2


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b" \n\n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.csv", b"question,truth\n", "holds no rows"),
        ("a.jsonl", b'{"question": "a"}\n5\n', "a.jsonl:2: expected an object, got int"),
        ("a.jsonl", b'{"question": "a"}\nnull\n', ":2: expected an object, got None"),
        ("a.jsonl", b'{"question": "a"}\n{"question": \xe9}\n', ":2: not UTF-8: byte 0xe9"),
        ("a.jsonl", b'\xff\xfe{\x00"\x00', "UTF-16; expected UTF-8"),
        ("a.jsonl", b'[{"question": "a"},\n {"question" "b"}]', "a.jsonl:2:14: not JSON"),
        ("a.jsonl", b'[{"question": "a"}]\n{"question": "b"}', ":2:1: not JSON: something"),
        ("a.jsonl", b'[{"question": "a"},\n 7]', "a.jsonl:2: row 2: expected an object"),
        ("a.jsonl", b'[{"question": "a"}', ":1:19: not JSON: Expecting ','"),
        ("a.jsonl", b'{"question": "\\ud800"}', ":1: half a character"),
        ("a.json", b'{"rows": [\n1]}', "expected a list of objects"),
        ("a.csv", b"question,truth\n1,2\n1,2,3\n", ":3: expected 2 fields, got 3"),
        ("a.csv", b"question,truth\r1,2\r", "carriage returns alone"),
        ("a.csv", b"question,truth\n1,\xe92\n", ":2: not UTF-8"),
        ("a.jsonl.gz", b"no", "broken gzip file"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_its_place_by_every_command(
    align, tmp_path, name, raw, says
):
    (tmp_path / name).write_bytes(raw)
    for command in ("split", "filter", "show", "distill"):
        arguments = [name if a == "FILE" else a for a in COUNTING[command]]
        code, _, err = align(*arguments)
        assert code == 2 and says in err and "Traceback" not in err, (command, err)


def test_an_element_longer_than_what_is_read_at_once_is_read_and_a_fault_placed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(json_text, "CHUNK", 16)
    rows = [{"a": "x" * n, "é": [n, 1.5e3, None]} for n in range(0, 120, 7)]
    path = tmp_path / "a.json"
    for indent in (None, 2):
        path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False))
        assert read_file(path) == rows
    text = json.dumps(rows, indent=2)
    for cut in range(1, len(text), 41):
        path.write_text(text[:cut] + "\x01")
        with pytest.raises(
            InputError, match=rf"a\.json:{text[:cut].count(chr(10)) + 1}"
        ):
            read_file(path)


def test_a_row_beyond_the_bound_is_refused(tmp_path, monkeypatch):
    from alignkit.data import files

    monkeypatch.setattr(files, "MAX_ROW", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + json.dumps({"a": "x" * 2000}))
    with pytest.raises(InputError, match=r"a\.jsonl:2: a row of more than"):
        read_file(path)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.parquet"]
)
def test_rows_are_read_one_after_another(tmp_path, name):
    rows = [{"question": f"{n} " + "y" * 2000} for n in range(10_000)]
    text = {"a.json": json.dumps(rows), "a.csv": "question\n"}.get(name, lines(rows))
    if name == "a.csv":
        text += "".join(row["question"] + "\n" for row in rows)
    raw = gzip.compress(text.encode()) if name.endswith("gz") else text.encode()
    path = tmp_path / name
    if name == "a.parquet":
        parquet(path, rows)
    else:
        path.write_bytes(raw)
    del text, raw, rows
    tracemalloc.start()
    count = sum(1 for _ in file_rows(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert most < 8e6  # of 20 MB


def test_a_limit_reads_no_further(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "a"}\n{"question": "b"}\nbroken\n')
    rows = islice(read_rows(path=path, stream=True), 2)
    assert [row["question"] for row in rows] == ["a", "b"]
