"""Rows and prompts: where rows come from, what is wrong with a file, how a template is
filled.
"""

import gzip
import json

import pytest

from alignkit import kits, plugins
from alignkit.data import (
    fingerprint,
    load_prompt,
    load_rows,
    prompt_hash,
    read_file,
    read_rows,
    render,
    render_pair,
    require_columns,
)
from alignkit.errors import InputError, MissingError, PluginError
from alignkit.types import Prompt


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.jsonl",
            '{"question": "1", "truth": "None"}\n\n{"question": "2", "truth": "NA"}\n',
        ),
        (
            "a.json",
            '[{"question": "1", "truth": "None"}, {"question": "2", "truth": "NA"}]',
        ),
        ("a.csv", '\ufeffquestion,truth\n1,None\n2,"NA"\n'),
        ("a.tsv", "question\ttruth\n1\tNone\n2\tNA\n"),
        ("a.csv.gz", gzip.compress(b"question,truth\n1,None\n2,NA\n", mtime=0)),
    ],
)
def test_every_format_gives_the_same_rows_and_keeps_none_and_na_as_text(
    tmp_path, name, text
):
    assert read_file(write(tmp_path / name, text)) == [
        {"question": "1", "truth": "None"},
        {"question": "2", "truth": "NA"},
    ]


def test_parquet_is_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"question": "1"}]), tmp_path / "a.parquet"
    )
    assert read_file(tmp_path / "a.parquet") == [{"question": "1"}]


def test_a_line_separator_inside_a_json_string_does_not_split_the_row(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"question": "a\u2028b\u0085c"}\n')
    assert read_file(path) == [{"question": "a\u2028b\u0085c"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl:2:7: not JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl:2: expected an object.*got list"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"a\.jsonl:2: not UTF-8: byte 0xff"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1:2: nested too deeply"),
        ("a.json", '{"a": 1}', r"a\.json: a single object; expected a list of objects"),
        ("a.json", '[\n{"a" 1}]', r"a\.json:2:6: not JSON"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv:3: expected 2 fields"),
        ("a.csv", "a,b,a\n1,2,3\n", r"a\.csv:1: two columns are called 'a'"),
        ("a.csv", "a,b\n1\n", r"a\.csv:2: expected 2 fields"),
        ("a.csv", 'a,b\n1,"2\n', r"a\.csv:\d: unexpected end of data"),
        ("a.jsonl.gz", b"not gzip", r"broken gzip"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-20],
            r"broken gzip",
        ),
        ("a.parquet", b"not parquet", r"not a Parquet file"),
        ("a.xlsx", b"", r"unknown data format; known: jsonl, "),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_file(write(tmp_path / name, text))


def test_path_goes_before_align_data(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "rows.jsonl", json.dumps({"from": folder}))
    monkeypatch.setenv("ALIGN_DATA", str(tmp_path / "one"))
    assert read_rows(local=["rows.jsonl"]) == [{"from": "one"}]
    assert read_rows(path=tmp_path / "two", local=["rows.jsonl"]) == [{"from": "two"}]
    assert read_rows(path=tmp_path / "two" / "rows.jsonl") == [{"from": "two"}]


def test_unreachable_data_name_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_DATA", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingError,
        match=(
            r"some/set cannot be had from the Hub.*ALIGN_DATA.*holds a\.jsonl.*--data"
        ),
    ):
        read_rows(local=["a.jsonl"], hub="some/set")


@pytest.mark.parametrize("path", ["nowhere.jsonl", "."])
def test_a_path_without_the_data_says_what_was_looked_for(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MissingError, match=r"there is no data file nowhere|holds none of a\.jsonl"
    ):
        read_rows(path=path, local=["a.jsonl"])


def test_columns_rename_and_reach_into_nested_values(tmp_path, registry):
    row = {"problem": "1+1", "turns": [{"value": "hello"}], "level": 3, "a.b": "dotted"}
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    columns = {"question": "problem", "chosen": "turns.0.value", "x": "a.b"}
    rows = load_rows({"path": str(path), "columns": columns}, registry)
    assert rows == [
        {
            "question": "1+1",
            "chosen": "hello",
            "x": "dotted",
            "turns": [{"value": "hello"}],
            "level": 3,
        }
    ]
    with pytest.raises(
        InputError,
        match=r"jsonl:1 has no column 'answer'; it has a\.b, level, problem, turns",
    ):
        load_rows({"path": str(path), "columns": {"truth": "answer"}}, registry)


def test_a_folder_holds_one_file_per_split(tmp_path, registry):
    write(tmp_path / "train.jsonl", '{"question": "a"}')
    write(tmp_path / "test.csv", "question\nb\n")
    assert load_rows({"path": str(tmp_path), "split": "test"}, registry) == [
        {"question": "b"}
    ]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"dataset": "arithmetik"}, PluginError, "did you mean 'arithmetic'"),
        (
            {"dataset": "arithmetic", "wroked": 0.5},
            InputError,
            "no option 'wroked'; did you mean 'worked'",
        ),
        ({"dataset": "arithmetic", "worked": "all"}, InputError, "expected float"),
        ({"dataset": "arithmetic", "path": "x"}, InputError, "takes no path"),
        (
            {"dataset": "arithmetic", "split": "dev"},
            InputError,
            "splits train and test",
        ),
        ({"dataset": "arithmetic", "limit": 0}, InputError, "limit is 0"),
        ({"dataset": "arithmetic", "size": 0}, InputError, "holds no rows"),
    ],
)
def test_a_wrong_data_spec_says_what_is_wrong(registry, spec, error, message):
    with pytest.raises(error, match=message):
        load_rows(spec, registry)


def test_limit_takes_the_first_rows_and_the_seed_reaches_the_dataset(registry):
    spec = {"dataset": "arithmetic", "size": 50}
    one, two = load_rows(spec, registry, seed=1), load_rows(spec, registry, seed=2)
    assert load_rows(spec | {"limit": 5}, registry, seed=1) == one[:5]
    assert one != two == load_rows(spec | {"seed": 2}, registry, seed=1)


def test_the_fingerprint_depends_on_content_and_order():
    a, b = {"question": "1", "truth": "x"}, {"question": "2", "truth": "\ud800"}
    assert fingerprint([a, b]) == fingerprint([dict(reversed(a.items())), b])
    assert len({fingerprint([a, b]), fingerprint([b, a]), fingerprint([a])}) == 3


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(
        InputError,
        match=r"the reward needs the column 'truth'; row 2 has answer, question\.",
    ):
        require_columns(
            [{"truth": 1}, {"question": "a", "answer": 2}], ["truth"], "the reward"
        )


def test_braces_and_placeholders_in_a_value_stay_as_they_are():
    row = {"question": r"{response} {0} \frac{a}{b} {question} %s", "truth": 4}
    assert (
        render(Prompt("p", "{truth}: {question}{response}!"), row)
        == rf"4: {row['question']}"
    )


@pytest.mark.parametrize("name", ["question", "instruction", "prompt", "problem"])
@pytest.mark.parametrize("column", ["question", "instruction", "prompt"])
def test_the_question_goes_by_any_of_its_names(name, column):
    assert render(Prompt("p", f"<{{{name}}}>"), {column: "why"}) == "<why>"


def test_a_placeholder_without_a_column_lists_the_columns():
    with pytest.raises(
        InputError,
        match=(
            r"'p' needs a text for \{context\}; the row has the columns question, truth"
        ),
    ):
        render(Prompt("p", "{context} {question}"), {"question": "a", "truth": "b"})


def test_without_a_prompt_the_rows_own_prompt_is_used():
    assert render(None, {"prompt": "P {x}", "response": "R"}) == "P {x}"
    with pytest.raises(InputError, match="no prompt is named"):
        render(None, {"question": "a"})


def test_a_training_response_ends_as_the_template_does(registry):
    prompt, response = render_pair(
        load_prompt("alpaca", registry), {"instruction": "Do", "response": "Done {x}"}
    )
    assert prompt.endswith("### Response:\n") and "Do\n" in prompt
    assert response == "Done {x}\n"
    with pytest.raises(InputError, match="needs a text `response`"):
        render_pair(None, {"prompt": "a", "response": None})


def test_a_chat_prompt_is_messages_without_the_response(registry):
    row = {"question": "{a}", "response": "b"}
    assert render_pair(load_prompt("chat", registry), row) == (
        [{"role": "user", "content": "{a}"}],
        "b",
    )


def test_a_prompt_file_is_taken_byte_for_byte(tmp_path, registry):
    content = b"  {question}\r\n```\n"
    path = write(tmp_path / "p.prompt", content)
    prompt = load_prompt({"file": str(path), "stop": ["x"]}, registry)
    assert render(prompt, {"question": "q"}).encode() == b"  q\r\n```\n"
    assert prompt.stop == ("x",)
    import hashlib

    assert prompt_hash(prompt) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no prompt file"),
        (b"\xff{a}", "not UTF-8"),
        (b"no", "needs a placeholder"),
    ],
)
def test_a_prompt_file_that_cannot_serve_is_refused(
    tmp_path, registry, content, message
):
    path = tmp_path / "p.prompt"
    if content is not None:
        write(path, content)
    with pytest.raises((InputError, MissingError), match=message):
        load_prompt({"file": str(path)}, registry)
