"""Kits are found and mounted; plugins are checked; faults name file and line."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import alignkit
from alignkit import kits, plugins
from alignkit.errors import PluginError
from alignkit.recipe.plugin_check import refuse_taken
from alignkit.recipe.schema import walk

GOOD = '''
from alignkit import Reward, Score, hookimpl

def short(response: str, truth: str, *, max_words: int = 5, words: tuple[str, ...] = ()) -> Score:
    """1 when short."""
    return Score(float(len(response.split()) <= max_words))

@hookimpl
def align_rewards():
    yield Reward("short", short)
'''


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    (tmp_path / "mykit" / "rewards").mkdir(parents=True)
    return tmp_path / "mykit"


def write(kit: Path, text: str, name: str = "short") -> Path:
    file = kit / "rewards" / f"{name}.py"
    file.write_text(text)
    return file


def load(kit: Path) -> plugins.Registry:
    return plugins.load([kits.at(kit, "--kit")])


def refused(kit: Path) -> str:
    with pytest.raises(PluginError) as error:
        load(kit)
    return str(error.value)


def test_a_plugin_is_found_by_name(kit: Path):
    file = write(kit, GOOD)
    plugin = load(kit).get("reward", "short")
    assert (plugin.file, plugin.kit) == (file, "mykit")


def test_options_are_checked_by_name_and_type(kit: Path):
    write(kit, GOOD)
    plugin = load(kit).get("reward", "short")
    assert plugins.check_options(plugin, {"max_words": 3, "words": ["a"]}) == []
    problems = dict(plugins.check_options(plugin, {"max_wrods": 3, "max_words": "3"}))
    assert "did you mean 'max_words'?" in problems["max_wrods"]
    assert "expected int" in problems["max_words"]


def test_a_boolean_is_no_number(kit: Path):
    write(kit, GOOD)
    assert plugins.check_options(load(kit).get("reward", "short"), {"max_words": True})


def test_bound_options_have_their_declared_type(kit: Path):
    write(kit, GOOD)
    plugin = load(kit).get("reward", "short")
    assert plugins.bind(plugin, plugin.functions[0], {"words": ["a"]}).keywords == {
        "words": ("a",)
    }


def test_a_missing_required_option_is_named(kit: Path):
    write(kit, GOOD.replace("max_words: int = 5", "max_words: int"))
    assert (
        "needs the option 'max_words'"
        in plugins.check_options(load(kit).get("reward", "short"), {})[0][1]
    )


def test_an_unknown_name_gets_the_nearest(kit: Path):
    write(kit, GOOD)
    with pytest.raises(PluginError, match="did you mean 'short'"):
        load(kit).get("reward", "shrot")


def test_a_misspelt_hook_is_an_error_with_line_and_hint(kit: Path):
    file = write(kit, GOOD.replace("align_rewards", "align_reward"))
    text = refused(kit)
    assert f"{file}:8" in text and "did you mean 'align_rewards'" in text


def test_an_unmarked_hook_is_an_error(kit: Path):
    write(kit, GOOD.replace("@hookimpl\n", ""))
    assert "put @hookimpl above it" in refused(kit)


def test_a_file_without_a_hook_is_an_error(kit: Path):
    write(kit, "x = 1\n")
    assert "no hook in it" in refused(kit)


def test_an_import_failure_names_file_line_and_cause(kit: Path):
    file = write(kit, "from alignkit import Reward\n\nimport nothing_like_this\n")
    assert f"{file}:3: ModuleNotFoundError" in refused(kit)


def test_a_syntax_error_names_the_line(kit: Path):
    file = write(kit, "def f(:\n")
    assert f"{file}:1" in refused(kit)


def test_a_hook_that_yields_the_wrong_type_is_an_error(kit: Path):
    write(kit, GOOD.replace('yield Reward("short", short)', 'yield ("short", short)'))
    assert "must yield Reward, got tuple" in refused(kit)


def test_an_option_without_a_type_is_an_error(kit: Path):
    write(kit, GOOD.replace("max_words: int = 5", "max_words=5"))
    assert "has no type annotation" in refused(kit)


def test_open_keyword_options_are_refused_for_they_hide_typos(kit: Path):
    write(
        kit,
        GOOD.replace(
            "max_words: int = 5, words: tuple[str, ...] = ()",
            "max_words: int = 5, **rest",
        ),
    )
    assert "takes **rest" in refused(kit)


def test_one_name_twice_in_a_kit_names_both_files(kit: Path):
    one, two = write(kit, GOOD, "one"), write(kit, GOOD, "two")
    assert str(one) in refused(kit) and str(two) in refused(kit)


def test_all_faulty_files_are_reported_at_once(kit: Path):
    one, two = write(kit, "x = 1\n", "one"), write(kit, "def f(:\n", "two")
    assert str(one) in refused(kit) and str(two) in refused(kit)


def test_one_name_in_two_kits_is_picked_by_kit(kit: Path, tmp_path: Path):
    write(kit, GOOD)
    other = tmp_path / "other"
    (other / "rewards").mkdir(parents=True)
    write(other, GOOD)
    registry = plugins.load([kits.at(kit, "--kit"), kits.at(other, "--kit")])
    with pytest.raises(PluginError, match="'mykit/short' or 'other/short'"):
        registry.get("reward", "short")
    assert registry.get("reward", "other/short").kit == "other"


def test_two_kits_of_one_name_are_refused(tmp_path: Path):
    for parent in ("a", "b"):
        (tmp_path / parent / "same" / "rewards").mkdir(parents=True)
    with pytest.raises(PluginError, match="two kits are named 'same'"):
        kits.find(folders=[tmp_path / "a" / "same", tmp_path / "b" / "same"])


def test_a_folder_that_is_no_kit_is_refused(tmp_path: Path):
    with pytest.raises(PluginError, match="is no kit"):
        kits.find(folders=[tmp_path])


def test_the_current_folder_is_no_kit_unless_asked_for(
    kit: Path, monkeypatch: pytest.MonkeyPatch
):
    write(kit, GOOD)
    monkeypatch.chdir(kit)
    monkeypatch.delenv("ALIGN_KITS", raising=False)
    assert kit not in [k.root for k in kits.find()]
    monkeypatch.setenv("ALIGN_KITS", str(kit))
    assert kit in [k.root for k in kits.find()]


def test_a_recipe_brings_the_kit_it_lies_in(kit: Path):
    recipe = kit / "recipes" / "deep" / "x.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("")
    assert [k.root for k in kits.of_recipe(recipe)] == [kit]


def test_a_helper_file_is_no_plugin(kit: Path):
    write(kit, GOOD)
    write(kit, "WORDS = 5\n", "_shared")
    assert load(kit).names("reward") == ["short"]


def test_a_plugin_function_pickles_into_a_spawned_process(kit: Path):
    write(kit, GOOD)
    plugin = load(kit).get("reward", "short")
    function = plugins.bind(plugin, plugin.functions[0], {"max_words": 1})
    code = (
        f"import pickle, sys; print(pickle.loads({pickle.dumps(function)!r})('a b',"
        " '').reward)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=60,
    )
    assert done.stdout.strip() == "0.0", done.stderr


def test_an_installed_package_brings_a_kit_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "site" / "fine_rewards"
    (package / "rewards").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "rewards" / "short.py").write_text(GOOD)
    info = tmp_path / "site" / "fine_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fine-rewards\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text("[alignkit.kits]\nfine = fine_rewards\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = {k.name: k.root for k in kits.find()}
    assert found["fine"] == package
    assert plugins.load([kits.Kit("fine", package)]).names("reward") == ["short"]


@pytest.mark.parametrize(
    "function",
    [
        "len",
        "3",
        "functools.partial(short, max_words=2)",
        "type('Word', (), {'__call__': lambda s, response: 1.0})()",
    ],
)
def test_a_plugin_without_a_function_of_its_own_is_refused(kit: Path, function: str):
    write(
        kit,
        "import functools\n" + GOOD.replace('"short", short', f'"short", {function}'),
    )
    assert "short.py: reward 'short' needs a function" in refused(kit)


@pytest.mark.parametrize("function", ["lambda response, truth: 1.0", "made()"])
def test_a_function_that_cannot_reach_the_grading_processes_is_refused(
    kit: Path, function: str
):
    made = (
        "\ndef made():\n    def inner(response, truth):\n        return 1.0\n    return"
        " inner\n"
    )
    write(kit, GOOD.replace('"short", short', f'"short", {function}') + made)
    assert "at the top level of its file" in refused(kit)


@pytest.mark.parametrize("name", ["3", "''", "'a/b'", "'a b'", "'openai:x'"])
def test_a_name_that_no_recipe_could_say_is_refused(kit: Path, name: str):
    write(kit, GOOD.replace('Reward("short"', f"Reward({name}"))
    assert "short.py:8: " in refused(kit)


def test_a_hook_with_parameters_is_an_error(kit: Path):
    write(kit, GOOD.replace("align_rewards()", "align_rewards(config)"))
    assert "config" in refused(kit)


def test_an_option_that_the_core_would_take_for_itself_is_an_error(kit: Path):
    write(kit, GOOD.replace("max_words", "weight"))
    with pytest.raises(PluginError) as caught:
        refuse_taken(load(kit))
    expected = "short.py:4: reward 'short' cannot have an option 'weight'"
    assert expected in str(caught.value)


def test_every_kind_with_options_in_a_recipe_has_its_map_there():
    sections = walk.sections_of_plugins()
    assert set(sections) == {"reward", "loss", "advantage", "dataset", "eval"}
    for kind, section in sections.items():
        assert all(
            p.options().keys().isdisjoint(section.model_fields)
            for p in plugins.load([kits.builtin()]).all(kind)
        ), kind


def test_an_option_of_a_type_that_no_recipe_can_state(kit: Path):
    write(
        kit,
        "import threading\n"
        + GOOD.replace("max_words: int = 5", "max_words: threading.Event = 5"),
    )
    [(option, text)] = plugins.check_options(
        load(kit).get("reward", "short"), {"max_words": 1}
    )
    assert option == "max_words" and "threading.Event" in text


def test_what_a_plugin_prints_leaves_standard_output_to_the_command(
    kit: Path, capsys: pytest.CaptureFixture[str]
):
    write(kit, "print('hello')\n" + GOOD)
    load(kit)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "hello\n")


def test_a_file_that_is_no_text_is_named(kit: Path):
    write(kit, GOOD + "\0")
    assert "short.py:1" in refused(kit)


# What 0.1 exported of single benchmarks, used as a plugin of that time did.
OF_0_1 = """
from alignkit import (
    alpaca_leaderboard, hookimpl, math_eval, math_rows, parse_gsm8k_response, parse_mmlu_response, reply_text,
)

@hookimpl
def align_evals():
    assert math_rows([{"problem": "1+1", "answer": "2"}], "mine")[0]["truth"] == "2"
    assert (parse_gsm8k_response("so 1,000"), parse_mmlu_response({}, "The answer is B")) == ("1000", "B")
    assert reply_text("yes\\n# Query: next") == "yes" and alpaca_leaderboard([], None) == {}
    yield math_eval("mine")
"""


def test_a_plugin_of_0_1_works_with_names_that_moved_and_each_is_said_once(
    kit: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in alignkit._MOVED:
        monkeypatch.delitem(vars(alignkit), name, raising=False)
    (kit / "evals").mkdir()
    (kit / "evals" / "mine.py").write_text(OF_0_1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = load(kit).get("eval", "mine")
    assert pickle.loads(pickle.dumps(found.value.score)) is found.value.score
    moved = [w for w in said if issubclass(w.category, DeprecationWarning)]
    assert len(moved) == len(alignkit._MOVED)
    for warning in moved:
        assert warning.filename == str(kit / "evals" / "mine.py")
        module, _, name = str(warning.message).partition(" is now ")[2].rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_a_helper_of_a_kit_is_imported_by_its_neighbours_also_in_another_process(
    kit: Path,
):
    write(kit, "def count(text): return len(text.split())\n", "_count")
    text = GOOD.replace("len(response.split())", "count(response)")
    write(
        kit, text.replace("\ndef short", "\nfrom ._count import count\n\ndef short", 1)
    )
    registry = load(kit)
    assert registry.names("reward") == ["short"]
    code = (
        "import pickle, sys; print(pickle.load(sys.stdin.buffer)('a b c', '', "
        "max_words=2).reward)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(registry.get("reward", "short").value.function),
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"0.0\n", done.stderr.decode()
