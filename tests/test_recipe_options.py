"""One grammar for options: what a recipe can state, every command reads back equal."""

from __future__ import annotations

import json
import math
import random

import pytest

from alignkit.cli import main
from alignkit.errors import RecipeError
from alignkit.recipe import options, tree, yaml

WORDS = [
    *("", " ", "a", "no", "true", "null", "~", "1", "1_000", "1e-5", "0x1f", ".inf"),
    *("a=b", "a,b", "a, b", "[a,b]", "{a: b}", "a: b", "a:b", ":", "=", ",", "#a"),
    *("a #b", "don't", "'a'", '"a"', 'say "a, b"', "a[b", "a]b", "f(x)[1,2]", "]", "}"),
    *(
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a`",
        "|",
        ">",
        "- a",
        "? a",
        "---",
        "\\frac{1}{2}",
    ),
    *(
        "a\nb",
        "\n",
        "\t",
        "é→😀",
        "\x1b[2J",
        "\x00",
        "\\",
        "\\n",
        " a ",
        "[red]a[/red]",
    ),
]
NUMBERS = [0, 1, -7, 10**18, 0.5, -1e-5, 1e300, math.inf, -math.inf]


def value(source: random.Random, depth: int = 2):
    """Any value that a recipe can state."""
    kind = source.randrange(6 if depth else 4)
    if kind == 0:
        return source.choice([None, True, False])
    if kind == 1:
        return source.choice(NUMBERS)
    if kind in (2, 3):
        words = source.choices(WORDS, k=source.choice([1, 1, 2]))
        return "".join(words)
    items = [value(source, depth - 1) for _ in range(source.randrange(4))]
    names = source.sample([word for word in WORDS if word.strip()], len(items))
    return items if kind == 4 else dict(zip(names, items, strict=True))


def written(value, source: random.Random, inside: bool = False) -> str:
    """The value as YAML of one line, in one of the styles that mean it."""
    if isinstance(value, list):
        comma = source.choice([",", ", "])
        return f"[{comma.join(written(item, source, True) for item in value)}]"
    if isinstance(value, dict):
        pairs = (
            f"{written(key, source, True)}: {written(item, source, True)}"
            for key, item in value.items()
        )
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    if not isinstance(value, str):
        return json.dumps(value)
    styles = [json.dumps(value, ensure_ascii=source.random() < 0.3 and value.isascii())]
    if value.isprintable():
        styles.append("'" + value.replace("'", "''") + "'")
    if not inside and plain_text(value):
        styles.append(value)
    return source.choice(styles)


def plain_text(text: str) -> bool:
    """Whether a recipe may state this text without quotes; commas and brackets apart."""
    if set(text) & set(",[{") or text != text.strip() or not text:
        return False
    try:
        parsed = yaml.parse(text, tree.Origin("a"), [])
    except RecipeError:
        return False
    return tree.plain(parsed) == text and not parsed.empty


def maps(count: int):
    source = random.Random(11)
    names = ["text", "words", "n", "max_words", "über"]
    for _ in range(count):
        chosen = source.sample(names, source.randrange(len(names)))
        stated = {name: value(source) for name in chosen}
        parts = [f"{name}={written(stated[name], source)}" for name in chosen]
        yield stated, "kit/name" + (":" + ",".join(parts) if parts else "")


def test_every_map_that_a_recipe_can_state_is_read_back_equal():
    for stated, text in maps(4000):
        assert options.named(text, "--reward") == ("kit/name", stated), text


def test_a_map_is_what_the_recipe_says():
    for stated, text in maps(400):
        recipe = "".join(f"{part}\n" for part in block(text))
        parsed = tree.plain(yaml.parse(recipe or "{}", tree.Origin("a"), []))
        assert parsed == stated, text


def block(text: str) -> list[str]:
    """The options of `name:a=1,b=2` as lines of a recipe."""
    rest = text.partition(":")[2]
    parts = options.split(rest, "") if rest else []
    return [": ".join(part.split("=", 1)) for part in parts]


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("r", {}),
        ("r:text=a=b", {"text": "a=b"}),
        ("r:words=[a,b]", {"words": ["a", "b"]}),
        ("r:words=[a,b],n=2", {"words": ["a", "b"], "n": 2}),
        ("r:target=1_000", {"target": "1_000"}),  # as in a recipe: text
        ("r:rate=1e-5", {"rate": 1e-5}),
        ("r:day=2024-01-01", {"day": "2024-01-01"}),
        ("r:flag=no", {"flag": "no"}),
        ("r:text=don't,n=1", {"text": "don't", "n": 1}),
        ("r:text='it''s, [so',n=1", {"text": "it's, [so", "n": 1}),
        ("r:text=f(x)[1,2],n=1", {"text": "f(x)[1,2]", "n": 1}),
        ("r:text=a[b", {"text": "a[b"}),
        ("r: text = a b , n = 1 ", {"text": "a b", "n": 1}),
        ("r:text=''", {"text": ""}),
        ("r:text=null", {"text": None}),
    ],
)
def test_forms_that_are_read(text, stated):
    assert options.named(text, "--reward") == ("r", stated)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected NAME[:OPTION=VALUE,…]"),
        (":a=1", "expected NAME[:OPTION=VALUE,…]"),
        ("r:", "expected NAME[:OPTION=VALUE,…]"),
        ("r:a", "expected NAME[:OPTION=VALUE,…]"),
        ("r:a=1,", "expected NAME[:OPTION=VALUE,…]"),
        ("r:a=1,,b=2", "expected NAME[:OPTION=VALUE,…]"),
        ("r:a=1 2,b", "expected NAME[:OPTION=VALUE,…]"),
        ("r:=1", "expected NAME[:OPTION=VALUE,…]"),
        ("r:a=", "no value given; a='\"\"' is the empty text"),
        ("r:a=1,a=2", "the option 'a' stands twice"),
        ("r:a=[1", "a: not YAML"),
        ("r:a=[1,b=2", "'[' is not closed"),
        ("r:a=x{1,b=2", "'{' is not closed"),
        ("r:a='b", "a: not YAML"),
        ("r:a=*b", "a: '*b' names no anchor"),
        ("r:a=!!python/name:os.system x", "a: the tag "),
        ("r:a=~", "a: ~ deletes what is inherited"),
        ("r:a=[~]", "a: ~ deletes what is inherited"),
        ("r:a={b: 1, b: 2}", "this key stands twice"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_text(text, says):
    with pytest.raises(RecipeError) as refused:
        options.named(text, "--reward")
    assert str(refused.value).startswith(f"--reward {text}: ")
    assert says in str(refused.value)


PLUGIN = """
import json, os
from typing import Any

from alignkit import DatasetSource, Eval, Reward, Sample, Score, hookimpl


def note(**options):
    with open(os.environ["NOTED"], "w") as file:
        json.dump(options, file)


def recorder(response: str, *, text: Any = None, n: Any = None) -> Score:
    note(text=text, n=n)
    return Score(1.0)


def load(*, split: str = "", path: str = "", text: Any = None, n: Any = None):
    note(text=text, n=n)
    return [{"question": "q", "response": "a", "truth": "a"}]


def samples(rows, render, *, text: Any = None, n: Any = None):
    note(text=text, n=n)
    for index, row in enumerate(rows):
        yield Sample(str(index), "q", "a", {"question": "q"})


def score(sample, response: str) -> Score:
    return Score(1.0)


@hookimpl
def align_rewards():
    yield Reward("recorder", recorder)


@hookimpl
def align_datasets():
    yield DatasetSource("recorded", load)


@hookimpl
def align_evals():
    data = {"dataset": "recorded"}
    yield Eval(name="recording", samples=samples, score=score, data=data)
"""
RECIPE = """
name: here
method: grpo
model: {build: {tokenizer: bytes}}
data: {train: {dataset: recorded}, prompt: question_only}
rewards: {recorder: {}}
"""


@pytest.fixture
def kit(tmp_path, monkeypatch):
    for folder in ("rewards", "recipes"):
        (tmp_path / "kit" / folder).mkdir(parents=True)
    (tmp_path / "kit" / "rewards" / "recorder.py").write_text(PLUGIN)
    (tmp_path / "kit" / "recipes" / "here.yaml").write_text(RECIPE)
    row = {"question": "q", "response": "a", "truth": "a", "id": "0"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTED", str(tmp_path / "noted.json"))
    return tmp_path


def assigned(text: str) -> list[str]:
    """`--set` for each option."""
    parts = options.split(text.partition(":")[2], "")
    return [word for part in parts for word in ("--set", part)]


COMMANDS = {
    "grade": lambda text: ["grade", "rows.jsonl", "--reward", text],
    "data filter": lambda text: [
        *("data", "filter", "rows.jsonl", "--out", "out.jsonl", "--reward", text)
    ],
    "data split": lambda text: [
        *("data", "split", "recorded", "--validation", "0", "--out", "out"),
        *assigned(text),
    ],
    "eval": lambda text: [
        *("eval", "recording", "--responses", "rows.jsonl", "--out", "evals"),
        *assigned(text.replace("text=", "recording.text=")),
    ],
}
VALUES = [
    *("a=b", "[a,b]", "{a: [1, 2]}", "1_000", "1e-5", "no", "true", "null", "don't"),
    *("'a, b'", '"\\u001b[2J [red]a[/red]"', "0x1f", "[[1,2],{a: 'b]'}]", "2024-01-01"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_the_same_options(kit, command, capsys):
    for word in VALUES:
        stated = options.named(f"recorder:text={word},n=1", "")[1]
        (kit / "noted.json").unlink(missing_ok=True)
        arguments = COMMANDS[command](f"recorder:text={word},n=1")
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--kit", "kit"])
        out, err = capsys.readouterr()
        assert stopped.value.code == 0, (word, err)
        assert json.loads((kit / "noted.json").read_text()) == stated, word
        assert "\x1b" not in out + err


def test_a_recipe_takes_the_same_options(kit):
    from alignkit import recipe
    from alignkit.cli.common import load_registry

    path = kit / "kit" / "recipes" / "here.yaml"
    for word in VALUES:
        stated = options.named(f"recorder:text={word},n=1", "")[1]
        sets = [f"rewards.recorder.text={word}", "rewards.recorder.n=1"]
        loaded = recipe.load(path, [], sets, load_registry([path]))
        assert loaded.config.rewards["recorder"].options == stated, word


def test_a_sweep_varies_over_the_same_values(kit):
    from alignkit.sweep.spec import from_recipe

    path = kit / "kit" / "recipes" / "here.yaml"
    for word in VALUES:
        stated = options.assignment(f"text={word}", "")[1]
        sets = [f"rewards.recorder.text={word},other"]
        varied = from_recipe(path, seeds=None, overlays=[], sets=sets)
        changes = [tree.plain(change) for change in varied.changes.values()]
        texts = [change["rewards"]["recorder"]["text"] for change in changes]
        assert texts == [stated, "other"], word


def test_what_a_reward_is_called_is_printed_as_it_was_typed(kit, capsys):
    with pytest.raises(SystemExit):
        main(["grade", "rows.jsonl", "--kit", "kit", "--reward", "recorder:text=[red]"])
    assert "recorder:text=[red]" in capsys.readouterr().out


def test_a_column_is_named_as_it_is_typed(kit, capsys):
    (kit / "odd.jsonl").write_text('{"true": "q", "1_0": "a"}\n')
    columns = ["--column", "question=true", "--column", "truth=1_0"]
    with pytest.raises(SystemExit) as stopped:
        main(
            ["data", "split", "odd.jsonl", "--validation", "0", "--out", "o", *columns]
        )
    assert stopped.value.code == 0, capsys.readouterr().err
    [row] = (kit / "o" / "train.jsonl").read_text().splitlines()
    assert json.loads(row) == {"question": "q", "truth": "a"}
