"""What differs between recipes, and recipes as YAML."""

import random

import pytest

from alignkit import recipe
from alignkit.recipe.inherit import Merger
from alignkit.recipe.yaml import Origin, parse, plain

VALUES = [1, True, "x", "no", [1], None, 1.5, {}]

SFT = (
    "method: sft\nmodel: {path: a/b}\ndata: {train: {dataset: arithmetic}}\ntrain:"
    " {max_steps: 9}\n"
)


@pytest.fixture
def load(tmp_path):
    def load(text, name="r", **options):
        (tmp_path / f"{name}.yaml").write_text(text)
        return recipe.load(tmp_path / f"{name}.yaml", **options)

    return load


def rows(differences):
    return [(d.key, d.a, d.b) for d in differences]


def test_a_diff_holds_only_what_differs_with_both_origins(load):
    a = load(SFT, "a")
    b = load("extends: a.yaml\nname: a\ntrain: {max_steps: 5, bf16: false}\n", "b")
    steps, bf16 = recipe.differences(a, b)
    assert (steps.key, steps.a, steps.b) == ("train.max_steps", 9, 5)
    assert str(steps.a_origin).endswith("a.yaml:4:9") and str(steps.b_origin).endswith(
        "b.yaml:3:9"
    )
    assert (bf16.a, bf16.a_origin, bf16.b) == (recipe.ABSENT, None, False)


def test_stating_a_default_is_no_difference(load):
    assert (
        recipe.differences(
            load(SFT, "a"),
            load(SFT + "name: a\nseed: 0\nlaunch: {processes: 1}\n", "b"),
        )
        == []
    )


def test_true_and_one_differ_and_one_and_one_point_zero_do_not():
    assert rows(recipe.diff_resolved({"a": True, "b": 1}, {"a": 1, "b": 1.0})) == [
        ("a", True, 1)
    ]


def test_the_diff_against_the_parent_turns_it_into_the_child(load):
    load(SFT + "evals: {math: {every: 5}}\n", "a")
    child = load("extends: a.yaml\ntrain: {max_steps: 5}\nevals: {math: ~}\n", "b")
    found = recipe.diff_against_parent(child)
    assert rows(found) == [
        ("train.max_steps", 9, 5),
        ("evals.math.every", 5, recipe.ABSENT),
    ]
    text = recipe.to_yaml(recipe.as_recipe(found))
    again = load("extends: a.yaml\nname: b\n" + text, "c")
    assert recipe.differences(again, child) == []


def test_a_map_in_place_of_a_name_and_back_is_a_change(load):
    prompt = "data: {prompt: {template: x}}\n"
    load(SFT.replace("arithmetic}", "arithmetic}, prompt: chat"), "a")
    child = load("extends: a.yaml\n" + prompt, "b")
    found = recipe.diff_against_parent(child)
    assert rows(found) == [
        ("data.prompt", "chat", recipe.ABSENT),
        ("data.prompt.template", recipe.ABSENT, "x"),
    ]
    again = load(
        "extends: a.yaml\nname: b\n" + recipe.to_yaml(recipe.as_recipe(found)), "c"
    )
    assert recipe.differences(again, child) == []
    back = recipe.as_recipe(
        recipe.diff_resolved({"p": {"template": "x"}}, {"p": "chat"})
    )
    assert back == {"p": "chat"}


def test_without_a_parent_the_diff_is_what_overlays_and_sets_change(load):
    assert recipe.diff_against_parent(load(SFT)) == []
    assert rows(recipe.diff_against_parent(load(SFT, sets=["train.max_steps=2"]))) == [
        ("train.max_steps", 9, 2)
    ]


@pytest.mark.parametrize(
    "value",
    [
        *(1e-5, 1e22, -0.5, 3, True, None, float("inf"), float("-inf")),
        *(
            "no",
            "1e-5",
            "~",
            "null",
            "",
            "12:30",
            "1_000",
            "0o17",
            "2024-01-01",
            "it's",
            "a: b",
            "#c",
            "*x",
            " lead",
        ),
        *(
            "a\nb\n",
            "a\n trailing \n\n",
            "\n",
            "a\r\nb",
            "tab\there",
            "ünï",
            "bell \x07",
            "x" * 300,
            "{question}\n",
        ),
        *([], {}, [1, "a", {"b": []}], {"on": {"x": [None]}}),
    ],
)
def test_yaml_reads_back_equal(value):
    problems: list[str] = []
    text = recipe.to_yaml({"key": value})
    assert plain(parse(text, Origin("x"), problems)) == {"key": value}
    assert problems == []


@pytest.mark.parametrize("value", [1e-5, "no", "12:30", "1_000", "1e-5"])
def test_yaml_reads_alike_to_older_readers(value):
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    assert yaml.load(recipe.to_yaml({"key": value})) == {"key": value}


def test_any_tree_plus_its_diff_is_the_other_tree():
    rng = random.Random(0)

    def tree(depth=0):
        names = rng.sample("pqrst", rng.randint(0, 4))
        return {
            n: (
                tree(depth + 1)
                if depth < 3 and rng.random() < 0.5
                else rng.choice(VALUES)
            )
            for n in names
        }

    def node(values):
        return parse(recipe.to_yaml(values), Origin("x"), [])

    for _ in range(200):
        a, b = tree(), tree()
        merger = Merger()
        change = recipe.as_recipe(recipe.diff_resolved(a, b))
        assert plain(merger.merge(node(a), node(change))) == b
        assert merger.problems == []
