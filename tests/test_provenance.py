"""What two runs, and two graders, have in common: identities and fingerprints."""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic.fields import FieldInfo

from alignkit import data, kits, plan, plugins, provenance, recipe
from alignkit.cli import main
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError, PluginError
from alignkit.evaluate import EvalRequest, StoredResponses, evaluate, plan_eval
from alignkit.grading import Grader
from alignkit.provenance import identity as identity_of
from alignkit.provenance.fingerprint import decisive
from alignkit.recipe.schema import walk

identities = sys.modules["alignkit.provenance.identity"]

KIT = {
    "rewards/exact.py": (
        """\
\"\"\"A reward with helpers.\"\"\"

from alignkit import Reward, grade, hookimpl
from alignkit.kits.proj.rewards._rules import SCALE, right


def exact(response: str, truth: str, *, bonus: float = 0.0) -> float:
    \"\"\"Right or wrong.\"\"\"
    from ._late import cut

    if len(response) > 10_000:
        from alignkit.kits.proj.plugins import _rare as rare

        response = rare.shorten(response)
    grade(cut(response), truth)
    return SCALE * right(response, truth) + bonus


@hookimpl
def align_rewards():
    yield Reward("exact", exact)
"""
    ),
    "rewards/_rules.py": (
        """\
from ._deeper import same

SCALE = 1.0  # of a right answer
UNUSED = 3


def right(response, truth):
    return same(response, truth)
"""
    ),
    "rewards/_deeper.py": (
        "def same(a, b):\n    # as texts\n    return a.strip() == b.strip()\n"
    ),
    "rewards/_late.py": "def cut(text):\n    return text[-200:]\n",
    "plugins/_rare.py": "def shorten(text):\n    return text[:10]\n",
    "rewards/_other.py": "X = 1\n",
    "evals/bench.py": (
        """\
from alignkit import Eval, Sample, Score, hookimpl
from ._scores import score_of


def samples(rows, render):
    for row in rows:
        yield Sample(row["id"], render(row), row["truth"])


def score(sample, response):
    return Score(score_of(response, sample.truth))


@hookimpl
def align_evals():
    data = {"dataset": "questions"}
    yield Eval(name="bench", samples=samples, score=score, data=data, prompt="ask")
"""
    ),
    "evals/_scores.py": "def score_of(a, b):\n    return float(a == b)\n",
    "plugins/questions.py": (
        """\
from alignkit import DatasetSource, hookimpl
from ._rows import rows


def load(*, split: str = "test"):
    return rows(split)


@hookimpl
def align_datasets():
    yield DatasetSource("questions", load)
"""
    ),
    "plugins/_rows.py": (
        "def rows(split):\n    return [{'id': split, 'question': '1+1=?', 'truth':"
        " '2'}]\n"
    ),
    "plugins/ask.py": (
        """\
from alignkit import Prompt, hookimpl


@hookimpl
def align_prompts():
    yield Prompt("ask", "Q: {question}", ("stop",))
"""
    ),
    "plugins/watch.py": (
        """\
from alignkit import Callback, hookimpl


def logged(info, step, numbers):
    print(step)


@hookimpl
def align_callbacks():
    yield Callback(name="watch", step_logged=logged)
"""
    ),
    "plugins/verdicts.py": (
        """\
from alignkit import Judge, hookimpl


@hookimpl
def align_judges():
    yield Judge(name="verdicts", model="large", base_url="http://127.0.0.1:9/v1")
"""
    ),
    "rewards/asked.py": (
        """\
from alignkit import Reward, hookimpl


def asked(response: str, *, judge: str = "verdicts") -> float:
    return 1.0


@hookimpl
def align_rewards():
    yield Reward("asked", asked)
"""
    ),
}
RECIPE = """\
method: grpo
model: {path: a/b}
data:
  train: {dataset: jsonl, path: train.jsonl}
  validation: {dataset: jsonl, path: validation.jsonl}
  prompt: {file: prompt.txt}
rewards: {exact: {}, asked: {weight: 0.5}}
loss: {name: grpo_clip, normalize: sequence}
advantage: {name: group}
generation: {max_new_tokens: 8, top_p: 0.9}
train: {eval_strategy: steps, learning_rate: 1.0}
callbacks: [watch]
evals:
  bench: {}
  gsm8k: {data: {dataset: jsonl, path: eval.jsonl}, prompt: {file: eval.txt}}
"""
DATA = {
    "train.jsonl": '{"question": "1+1=?", "truth": "2"}\n',
    "validation.jsonl": '{"question": "1+2=?", "truth": "3"}\n',
    "eval.jsonl": '{"id": "a", "question": "2+2=?", "truth": "4"}\n',
    "prompt.txt": "{question}",
    "eval.txt": "Q: {question}",
}


@pytest.fixture
def kit(tmp_path):
    """A kit with helpers, in a folder of its own."""
    root = tmp_path / "proj"
    for name, text in KIT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def project(kit):
    """The kit with a recipe and data: its fingerprint, with plugins imported anew."""
    (kit / "recipes").mkdir()
    (kit / "recipes/r.yaml").write_text(RECIPE)
    for name, text in DATA.items():
        (kit / "recipes" / name).write_text(text)
    return kit


def registry_of(root):
    for name in [n for n in sys.modules if n.startswith("alignkit.kits.proj")]:
        del sys.modules[name]
    return plugins.load([kits.builtin(), kits.at(root, "here")])


def fingerprint(root, *sets):
    registry = registry_of(root)
    loaded = recipe.load(root / "recipes/r.yaml", sets=sets, registry=registry)
    return provenance.of_run(loaded, registry)


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    # the size may be the same, and the clock be coarse
    later = time.time_ns() + 10_000_000_000
    os.utime(file, ns=(later, later))


def exact_of(root):
    return identity_of(registry_of(root).get("reward", "exact"))


DECIDES = {
    "helper": ("rewards/_rules.py", "SCALE = 1.0", "SCALE = 2.0"),
    "helper's name": ("rewards/_rules.py", "UNUSED = 3", "SPARE = 3"),
    "helper of a helper": ("rewards/_deeper.py", "a.strip()", "a"),
    "import in a function": ("rewards/_late.py", "-200", "-100"),
    "import under a condition": ("plugins/_rare.py", "[:10]", "[:20]"),
    "default of an option": ("rewards/exact.py", "bonus: float = 0.0", "bonus: float = 1.0"),
    "text in code": ("rewards/exact.py", '"exact", exact', '"exact", exact, 9.0'),
    "type of an option": ("rewards/exact.py", "bonus: float = 0.0", "bonus: int = 0"),
    "operator": ("rewards/exact.py", ") + bonus", ") - bonus"),
    "integer for a number": ("rewards/_rules.py", "SCALE = 1.0", "SCALE = 1"),
}  # fmt: skip
SAYS_THE_SAME = {
    "comment": ("rewards/_rules.py", "# of a right answer", "# another comment"),
    "comment gone": ("rewards/_deeper.py", "    # as texts\n", ""),
    "docstring": ("rewards/exact.py", '"""Right or wrong."""', '"""Otherwise said."""'),
    "docstring gone": ("rewards/exact.py", '"""A reward with helpers."""\n', ""),
    "docstring new": ("rewards/_late.py", "text):\n", 'text):\n    """Its end."""\n'),
    "number": ("rewards/exact.py", "10_000", "10000"),
    "mark of a text": ("rewards/exact.py", 'Reward("exact"', 'Reward(u"exact"'),
    "layout": ("rewards/_deeper.py", "a.strip() == b.strip()", "(\n  a.strip()\n == b.strip())"),
    "quotes": ("plugins/_rare.py", "def shorten(text):", "def shorten( text, ) :"),
    "order of imports": ("rewards/exact.py", "Reward, grade, hookimpl", "hookimpl, grade, Reward"),
    "lines of imports": ("rewards/exact.py", "import SCALE, right", "import (\n    right,\n    SCALE,\n)"),
    "relative import": ("rewards/exact.py", "alignkit.kits.proj.rewards._rules", "._rules"),
    "for type checkers": ("rewards/_rules.py", "UNUSED = 3", "UNUSED = 3\nfrom typing import TYPE_CHECKING\n"),
    "not imported": ("rewards/_other.py", "X = 1", "X = 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", DECIDES)
def test_what_decides_changes_the_identity_and_is_named(kit, what):
    before = exact_of(kit)
    file, old, new = DECIDES[what]
    change(kit / file, old, new)
    after = exact_of(kit)
    assert before.sha256 != after.sha256
    (said,) = provenance.differences(before.parts, after.parts)
    assert said == f"{file} changed"


@pytest.mark.parametrize("what", sorted(set(SAYS_THE_SAME) - {"for type checkers"}))
def test_what_says_the_same_leaves_the_identity(kit, what):
    before = exact_of(kit)
    file, old, new = SAYS_THE_SAME[what]
    change(kit / file, old, new)
    assert exact_of(kit) == before


def test_what_only_type_checkers_import_decides_nothing(kit):
    head = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {}\n"
    file = kit / "rewards/_rules.py"
    change(file, "from ._deeper", head.format("import torch") + "from ._deeper")
    before = exact_of(kit)
    assert not {"torch"} & {*before.packages}
    change(file, "import torch", "import trl")
    assert exact_of(kit) == before


def test_a_renamed_helper_is_another_file(kit):
    before = exact_of(kit)
    (kit / "rewards/_late.py").rename(kit / "rewards/_later.py")
    change(kit / "rewards/exact.py", "._late", "._later")
    said = list(provenance.differences(before.parts, exact_of(kit).parts))
    assert "its helper rewards/_late.py is gone" not in said  # a bare part has no owner
    assert {"rewards/_late.py is gone", "rewards/_later.py is new"} < {*said}


@pytest.mark.parametrize(
    "how",
    [
        "import_module('._late', __package__)",
        "__import__('alignkit.kits.proj.rewards._late')",
    ],
)
def test_a_module_imported_by_a_constant_name_counts(kit, how):
    text = f"from importlib import import_module\n\n\ndef cut(t):\n    {how}\n"
    (kit / "rewards/_by_name.py").write_text(text)
    change(kit / "rewards/exact.py", "from ._late", "from ._by_name")
    assert "rewards/_late.py" in exact_of(kit).code


def test_where_a_kit_lies_and_what_it_is_called_decides_nothing(kit, tmp_path):
    change(kit / "rewards/exact.py", "alignkit.kits.proj.plugins", "..plugins")
    change(kit / "rewards/exact.py", "alignkit.kits.proj.rewards._rules", "._rules")
    before = exact_of(kit)
    other = shutil.copytree(kit, tmp_path / "elsewhere" / "named_otherwise")
    registry = plugins.load([kits.builtin(), kits.at(other, "here")])
    assert identity_of(registry.get("reward", "exact")) == before


def test_a_circle_of_imports_is_no_trouble(kit):
    late = kit / "rewards/_late.py"
    late.write_text(
        "def cut(text):\n    from . import _rules, exact\n    return text\n"
    )
    found = exact_of(kit)
    assert {"rewards/_late.py", "rewards/exact.py"} <= {*found.code}
    change(late, "return text", "return text[1:]")
    assert exact_of(kit) != found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"def cut(:\n", r"_rare\.py:1: "),
        (b"\xff\xfe\x00", r"_rare\.py:1: "),
    ],
)
def test_a_helper_that_cannot_be_read_is_one_error_with_its_file(kit, text, said):
    (kit / "plugins/_rare.py").write_bytes(text)
    with pytest.raises(PluginError, match=said) as caught:
        exact_of(kit)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("helper", ["plugins/_rare.py", "rewards/_late.py"])
@pytest.mark.parametrize("link", [False, True])
def test_a_helper_that_is_not_there_is_an_error_before_it_is_called(kit, helper, link):
    file = kit / helper
    file.unlink()
    if link:
        file.symlink_to(kit / "gone")
    said = rf"rewards/exact\.py: imports {file.parent.name}\.{file.stem}"
    with pytest.raises(PluginError, match=said):
        exact_of(kit)


@pytest.mark.parametrize("line", ["from ._faster import cut", "from . import _faster"])
def test_a_helper_that_may_be_missing_is_imported_under_try(kit, line):
    text = f"try:\n    {line}\nexcept ImportError:\n    cut = str\n"
    (kit / "rewards/_late.py").write_text(text)
    before = exact_of(kit)
    (kit / "rewards/_faster.py").write_text("cut = str.strip\n")
    assert exact_of(kit) != before


def test_a_package_counts_by_its_version_and_a_loose_file_is_not_covered(
    kit, tmp_path, monkeypatch
):
    place = tmp_path / "place"
    for name in ("shop_of_words", "loose_words"):
        (place / name).with_suffix(".py").parent.mkdir(exist_ok=True)
        (place / f"{name}.py").write_text("def clean(text):\n    return text\n")
    about = place / "shop_of_words-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: shop-of-words\nVersion: 1.0\n")
    (about / "top_level.txt").write_text("shop_of_words\n")
    monkeypatch.syspath_prepend(place)
    change(
        kit / "rewards/_late.py",
        "return",
        "import loose_words, shop_of_words\n    return",
    )
    found = exact_of(kit)
    assert found.packages["shop-of-words"] == "1.0"
    (note,) = found.not_covered
    assert str(place / "loose_words.py") in note and "belongs to no package" in note

    about.rename(place / "shop_of_words-1.1.dist-info")
    about = place / "shop_of_words-1.1.dist-info"
    (about / "METADATA").write_text("Name: shop-of-words\nVersion: 1.1\n")
    identities._versions.cache_clear()  # as in another process
    later = exact_of(kit)
    assert list(provenance.differences({"reward exact": found.parts}, {"reward exact": later.parts})) == [
        "reward exact: shop-of-words 1.0 there, 1.1 here"
    ]  # fmt: skip
    assert found.code == later.code


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("open('words.txt').read()", "words.txt"),
        ("Path('words.txt').read_text()", "words.txt"),
        ("Path(__file__).with_name('words.txt').read_bytes()", "words.txt"),
        ("(Path(__file__).parent / 'lists' / 'words.txt').open()", "lists/words.txt"),
        ("load(Path(__file__).with_name('words.txt'))", "words.txt"),
        ("open(text)", "a file (line 3)"),
    ],
)
def test_data_files_that_a_plugin_opens_are_named_as_not_covered(
    kit, code, named, capsys
):
    text = f"from pathlib import Path\ndef cut(text, load=str):\n    return {code}\n"
    (kit / "rewards/_late.py").write_text(text)
    note = f"{named}, which rewards/_late.py opens"
    assert exact_of(kit).not_covered == (note,)
    with pytest.raises(SystemExit):
        main(["plugins", "show", "exact", "--kit", str(kit)])
    assert f"its changes would not be seen: {note}" in capsys.readouterr().out


@pytest.fixture
def core(tmp_path, monkeypatch):
    """A copy of alignkit's own code, which identities are computed of."""
    home = Path(identities.__file__).parents[1]
    copy = shutil.copytree(
        home, tmp_path / "alignkit", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(identities, "_CORE", copy)
    return copy


@pytest.mark.parametrize(
    ("file", "text", "counts"),
    [
        ("grading/grade.py", "def grade(", True),
        ("grading/values.py", "def exact(", True),
        ("grading/expression.py", "class Node", True),
        ("types.py", "class Score", True),
        ("types.py", "class RunInfo", False),  # nothing that the reward uses
        ("grading/pool.py", "class Pool", False),
        ("errors.py", "class InputError", False),
        ("plugins/registry.py", "class Registry", False),
        ("data/__init__.py", "def load_rows(", False),
    ],
)
def test_of_alignkit_counts_what_a_reward_reaches(kit, core, file, text, counts):
    before = exact_of(kit)
    path = core / file
    line = next(line for line in path.read_text().splitlines() if line.startswith(text))
    name = line.removeprefix("class ").removeprefix("def ").split("(")[0].strip(":")
    with path.open("a") as opened:
        opened.write("\n# a comment\n")
    assert exact_of(kit) == before
    with path.open("a") as opened:
        opened.write(f"\n{name} = {name}\n")
    assert (exact_of(kit) != before) is counts


def test_what_grading_needs_counts_by_its_version(kit):
    assert {
        "math-verify",
        "sympy",
        "latex2sympy2_extended",
        "antlr4-python3-runtime",
    } <= {*exact_of(kit).packages}
    assert not identity_of(registry_of(kit).get("reward", "asked")).packages


def test_the_identities_of_all_built_in_plugins_take_no_time():
    registry = plugins.load([kits.builtin()])
    everything = [p for kind in plugins.KINDS for p in registry.all(kind)]
    identities_of = [identity_of(p) for p in everything]  # parsed once
    started = time.process_time()
    assert [identity_of(p) for p in everything] == identities_of
    assert time.process_time() - started < 1.0
    names = {
        f"{p.kit} {p.kind} {p.name}": i
        for p, i in zip(everything, identities_of, strict=True)
    }
    assert len({i.sha256 for i in names.values()}) > 40


@pytest.fixture
def copied(core, tmp_path):
    """The built-in plugins, from files of their own that may be changed."""
    for name in kits.PLUGIN_FOLDERS:
        shutil.copytree(kits.builtin().root / name, tmp_path / "copy" / name)
    registry = plugins.load([kits.builtin()])
    return {
        (p.kind, p.name): replace(p, file=tmp_path / "copy" / Path(*p.file.parts[-2:]))
        for kind in plugins.KINDS
        for p in registry.all(kind)
    }


def rewrite(file, tree):
    file.write_text(ast.unparse(tree))
    later = file.stat().st_mtime_ns + 10_000_000_000
    os.utime(file, ns=(later, later))


def test_writing_all_code_in_another_way_changes_no_identity(copied, core, tmp_path):
    before = {key: identity_of(plugin) for key, plugin in copied.items()}
    for file in [*core.rglob("*.py"), *(tmp_path / "copy").rglob("*.py")]:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                node.body.insert(0, ast.Expr(ast.Constant("Another docstring.")))
        rewrite(file, ast.fix_missing_locations(tree))
    for key, plugin in copied.items():
        after = identity_of(plugin)
        assert (after.code, after.packages) == (before[key].code, before[key].packages)


def test_any_other_constant_is_another_identity(copied):
    rng = random.Random(0)
    for key, plugin in copied.items():
        before = identity_of(plugin).sha256
        tree = ast.parse(plugin.file.read_text())
        remarks = {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        constants = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node not in remarks
        ]
        chosen = rng.choice([n for n in constants if isinstance(n.value, str | int)])
        chosen.value = f"{chosen.value}x" if isinstance(chosen.value, str) else 77
        rewrite(plugin.file, tree)
        assert identity_of(plugin).sha256 != before, (key, chosen.lineno)


COUNTS = {
    "reward's helper": ("rewards/_rules.py", "1.0", "2.0"),
    "eval's helper": ("evals/_scores.py", "a == b", "a != b"),
    "prompt plugin of an eval": ("plugins/ask.py", "Q: {question}", "A: {question}"),
    "stop strings of an eval's prompt": ("plugins/ask.py", '"stop"', '"end"'),
    "data set of an eval": ("plugins/questions.py", "rows(split)", "rows('a')"),
    "helper of an eval's data set": ("plugins/_rows.py", "1+1", "1+2"),
    "judge of a reward": ("plugins/verdicts.py", "large", "small"),
    "rows": ("recipes/train.jsonl", "1+1", "1+3"),
    "validation rows": ("recipes/validation.jsonl", "1+2", "2+1"),
    "data file of an eval": ("recipes/eval.jsonl", "2+2", "3+1"),
    "prompt file": ("recipes/prompt.txt", "{question}", "{question}!"),
    "prompt file of an eval": ("recipes/eval.txt", "Q: ", "A: "),
    "setting": ("recipes/r.yaml", "top_p: 0.9", "top_p: 0.8"),
    "option of a reward": ("recipes/r.yaml", "exact: {}", "exact: {bonus: 1.0}"),
}
COUNTS_NOT = {
    "code of a callback": ("plugins/watch.py", "print(step)", "print(info)"),
    "callbacks": ("recipes/r.yaml", "callbacks: [watch]", "callbacks: []"),
    "name": ("recipes/r.yaml", "method", "name: otherwise\nmethod"),
    "layout of the recipe": ("recipes/r.yaml", "model: {path: a/b}", "model:\n  path: a/b"),
    "integer": ("recipes/r.yaml", "learning_rate: 1.0", "learning_rate: 1"),
    "a default, stated": ("recipes/r.yaml", "max_new_tokens: 8", "max_new_tokens: 8, top_k: 0"),
    "a section of defaults": ("recipes/r.yaml", "method", "launch: {processes: 1}\nmethod"),
    "default of an option, stated": ("recipes/r.yaml", "exact: {}", "exact: {bonus: 0}"),
    "order": ("recipes/r.yaml", "exact: {}, asked: {weight: 0.5}", "asked: {weight: 0.5}, exact: {}"),
    "layout of rows": ("recipes/train.jsonl", '": "', '" :   "'),
    "plugin that is not named": ("rewards/_other.py", "X", "Y"),
}  # fmt: skip


@pytest.mark.parametrize("what", COUNTS)
def test_all_that_a_recipe_names_counts_and_is_named(project, what):
    before = fingerprint(project)
    file, old, new = COUNTS[what]
    change(project / file, old, new)
    after = fingerprint(project)
    assert before.text != after.text and before.text.startswith("2:")
    said = "; ".join(provenance.changes(json.loads(json.dumps(before.record())), after))
    assert what == "option of a reward" or said, what
    expected = {
        "reward's helper": "reward exact: its helper rewards/_rules.py changed",
        "eval's helper": "eval bench: its helper evals/_scores.py changed",
        "rows": "rows of data.train changed",
        "data file of an eval": "rows of evals.gsm8k.data changed",
        "prompt file of an eval": "evals.gsm8k.prompt changed",
        "setting": "recipe changed",
        "judge of a reward": "judge verdicts: plugins/verdicts.py changed",
    }
    assert expected.get(what, said) == said


@pytest.mark.parametrize("what", COUNTS_NOT)
def test_what_decides_nothing_leaves_the_fingerprint(project, what):
    before = fingerprint(project)
    file, old, new = COUNTS_NOT[what]
    change(project / file, old, new)
    assert fingerprint(project).text == before.text


def test_files_count_by_content_not_by_where_they_lie(project):
    before = fingerprint(project).text
    for name in DATA:
        (project / "recipes" / name).rename(project / f"moved.{name}")
        change(project / "recipes/r.yaml", name, f"../moved.{name}")
    assert fingerprint(project).text == before


def test_the_folder_of_a_model_counts_by_content(project):
    for name in ("one", "two"):
        (project / name).mkdir()
        (project / name / "config.json").write_text("{}")
    change(project / "recipes/r.yaml", "a/b", "../one")
    before = fingerprint(project).text
    change(project / "recipes/r.yaml", "../one", "../two")
    assert fingerprint(project).text == before
    (project / "two/config.json").write_text("{ }")
    assert fingerprint(project).text != before


def test_the_code_of_grading_itself_counts(project, core):
    before = fingerprint(project)
    with (core / "grading/extract.py").open("a") as file:
        file.write("\nextract_answer = extract_answer\n")
    with (core / "grading/grade.py").open("a") as file:
        file.write("\ngrade = grade\n")
    assert "reward exact: alignkit/grading/grade.py changed" in provenance.changes(
        before.record(), fingerprint(project)
    )


def test_versions_count(project, monkeypatch):
    from alignkit.machine import here

    before = fingerprint(project)
    known = here.versions()
    monkeypatch.setattr(here, "versions", lambda: {**known, "trl": "9.9"})
    (said,) = provenance.changes(before.record(), fingerprint(project))
    assert said == f"versions: trl {known['trl']} there, 9.9 here"
    monkeypatch.setattr(here, "versions", lambda: {**known, "vllm": "9.9"})
    assert fingerprint(project).text == before.text  # nothing is sampled by it
    assert (
        fingerprint(project, "generation.engine=vllm").parts["versions"]["vllm"]
        == "9.9"
    )


def test_a_key_that_a_later_version_adds_at_its_default_changes_nothing(monkeypatch):
    stated = {"generation": {"top_p": 0.9, "max_new_tokens": 8}, "seed": 1}
    before = decisive(stated, {}, set())
    known = walk.declarations()
    later = replace(known["generation", "top_p"], field=FieldInfo(default=0.0))
    more = {**known, ("generation", "nucleus"): later}
    monkeypatch.setattr(walk, "declarations", lambda: more)
    stated["generation"]["nucleus"] = 0.0
    assert decisive(stated, {}, set()) == before
    stated["generation"]["nucleus"] = 0.5
    assert decisive(stated, {}, set()) != before


def test_rows_are_hashed_once_for_all_stages_and_of_whoever_loaded_them(
    project, monkeypatch
):
    registry = registry_of(project)
    loaded = recipe.load(project / "recipes/r.yaml", registry=registry)
    alone = provenance.of_run(loaded, registry)
    seen, load = [], data.load_rows

    def load_rows(spec, registry, *, seed):
        seen.append(spec)
        return load(spec, registry, seed=seed)

    monkeypatch.setattr(data, "load_rows", load_rows)
    datasets = Datasets(registry)
    assert provenance.of_run(loaded, registry, datasets) == alone
    assert len(seen) == 4
    assert provenance.of_run(loaded, registry, datasets) == alone
    assert len(seen) == 4


def test_a_run_of_0_1_is_told_by_its_versions_and_rows(project):
    now = fingerprint(project)
    rows = {"train": now.parts["rows of data.train"]}
    old = {
        "fingerprint": "ab" * 32,
        "data": rows,
        "versions": {**now.parts["versions"], "alignkit": "0.1.0", "sympy": "1"},
    }
    assert provenance.is_old(old) and not provenance.is_old(now.record())
    assert provenance.changes(old, now) == []
    change(project / "recipes/train.jsonl", "1+1", "2+1")
    assert provenance.changes(old, fingerprint(project)) == [
        "rows of data.train changed"
    ]
    old["versions"]["trl"] = "1.0"
    assert "versions: trl 1.0 there" in provenance.changes(old, now)[0]


def test_plan_says_what_run_would_say_of_a_helper_that_is_broken(project):
    (project / "plugins/_rare.py").write_text("def shorten(:\n")
    registry = registry_of(project)
    loaded = recipe.load(project / "recipes/r.yaml", registry=registry)
    (planned,) = plan.plan(loaded, registry)
    with pytest.raises(PluginError) as caught:
        provenance.of_run(loaded, registry)
    assert set(caught.value.problems) <= {*planned.wrong}


def test_a_circle_at_the_top_of_files_is_one_error_with_its_file(kit):
    change(
        kit / "rewards/_deeper.py", "def same", "from .exact import exact\n\n\ndef same"
    )
    with pytest.raises(PluginError, match="circular import") as caught:
        registry_of(kit)
    assert len(caught.value.problems) == 1 and "exact.py:" in str(caught.value)


@pytest.fixture
def scored(project, tmp_path):
    """Scores two stored responses with the kit's eval: (summary, what was announced)."""
    responses = tmp_path / "responses.jsonl"
    responses.write_text('{"id": "test", "response": "2"}\n')

    def score():
        registry = registry_of(project)
        stored = StoredResponses.read(responses)
        request = EvalRequest.of(registry.get("eval", "bench"))
        said = []
        with Grader(workers=1) as grader:
            summary = evaluate(
                plan_eval(request, registry, stored),
                None,
                tmp_path / "out",
                grader=grader,
                announce=said.append,
            )
        return summary, said

    return score


def test_scores_of_another_helper_are_dropped_and_the_graders_differ(scored, project):
    before, _ = scored()
    again, said = scored()
    assert again["provenance"]["grader"] == before["provenance"]["grader"]
    assert not any("anew" in text for text in said)
    change(project / "evals/_scores.py", "a == b", "a != b")
    after, said = scored()
    assert (before["value"], after["value"]) == (1.0, 0.0)
    assert "grader: its helper evals/_scores.py changed" in "; ".join(said)
    assert (
        before["provenance"]["grader"]["sha256"]
        != after["provenance"]["grader"]["sha256"]
    )


def test_scores_of_0_1_are_computed_anew_and_said(scored, tmp_path):
    scored()
    settings = tmp_path / "out/bench@0/settings.json"
    state = json.loads(settings.read_text())
    grader = {"name": "bench", "sha256": "ab" * 32, "options": {}}
    settings.write_text(
        json.dumps({**state, "scoring": {"grader": grader, "judge": None}})
    )
    summary, said = scored()
    assert summary["value"] == 1.0
    (text,) = [text for text in said if "anew" in text]
    assert "computed anew: they are of alignkit 0.1" in text


def test_the_difference_of_two_runs_names_the_helper_that_changed(project, tmp_path):
    from alignkit.cli import cli
    from alignkit.train import start

    def begun(name):
        registry = registry_of(project)
        loaded = recipe.load(project / "recipes/r.yaml", registry=registry)
        datasets = Datasets(registry)
        return start.create_run(loaded, registry, datasets, folder=tmp_path / name)

    def differing(a, b):
        command = [
            "diff",
            str(a.folder),
            str(b.folder),
            "--json",
            "--kit",
            str(project),
        ]
        done = CliRunner().invoke(cli, command, catch_exceptions=False)
        return {row["key"] for row in json.loads(done.stdout)}

    first, again = begun("first"), begun("again")
    assert differing(first, again) == set()
    change(project / "rewards/_rules.py", "1.0", "2.0")
    assert differing(first, begun("other")) == {"reward exact.rewards/_rules.py"}
    again.update(fingerprint="ab" * 32)  # as 0.1 wrote it
    assert differing(first, again) == {"identity"}


def test_a_run_goes_on_only_with_what_it_was_begun_with(project, tmp_path):
    from alignkit.run import Run
    from alignkit.train import start

    registry = registry_of(project)
    loaded = recipe.load(project / "recipes/r.yaml", registry=registry)
    datasets = Datasets(registry)
    begun = start.create_run(loaded, registry, datasets, folder=tmp_path / "run")
    assert start.check_unchanged(loaded, registry, datasets, begun) == []
    change(project / "rewards/_rules.py", "1.0", "2.0")
    change(project / "recipes/eval.jsonl", "2+2", "3+1")
    with pytest.raises(InputError) as caught:
        start.check_unchanged(
            loaded, registry, Datasets(registry), Run.open(begun.folder)
        )
    said = str(caught.value)
    assert "other data, plugins or versions" in said
    assert "reward exact: its helper rewards/_rules.py changed; rows of evals." in said

    begun.update(fingerprint="ab" * 32)
    del begun.manifest["identity"]
    (note,) = start.check_unchanged(loaded, registry, Datasets(registry), begun)
    assert "begun by alignkit 0.1" in note
