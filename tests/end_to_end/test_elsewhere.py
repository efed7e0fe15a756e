"""Outside a checkout: a recipe that comes with alignkit runs anywhere, and brings no
code that lies beside the user.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import align

from alignkit import cli, kits, plugins, recipe

QUICKSTART = kits.builtin().root / "recipes" / "quickstart.yaml"
EVIL = "from pathlib import Path\nPath(__file__).with_suffix('.imported').touch()\n"
MINI = ("--with", "recipes/overlays/mini.yaml")
SHORT = (
    *("--set", "stages.sft.train.max_steps=1", "--set", "stages.sft.evals=~"),
    *("--set", "stages.grpo.train.max_steps=1", "--set", "stages.grpo.evals=~"),
)


def plant(folder: Path) -> None:
    """Plugin files that leave a mark when they are imported."""
    for name in kits.PLUGIN_FOLDERS:
        (folder / name).mkdir()
        (folder / name / "evil.py").write_text(EVIL)


def imported(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.imported"))


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with code in it that nobody asked for."""
    folder = tmp_path / "x"
    folder.mkdir()
    plant(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ALIGN_KITS", raising=False)
    return folder


def outcome(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[object, str]:
    """The exit code of a command in this process, and all that it said."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return left.value.code, said.out + said.err


def roots(recipe: Path) -> list[Path]:
    return [kit.root for kit in kits.of_recipe(recipe)]


COMMANDS = {
    "run": ("run", "recipes/quickstart.yaml", "--only", "nothing"),
    "plan": ("plan", "recipes/quickstart.yaml"),
    "plan, by name": ("plan", "quickstart.yaml"),
    "diff": ("diff", "recipes/quickstart.yaml"),
    "diff of two": ("diff", "recipes/sft_math.yaml", "recipes/grpo_math.yaml"),
    "data": ("data", "show", "recipes/sft_math.yaml"),
    "doctor": ("doctor", "--recipe", "recipes/quickstart.yaml"),
    "sweep of a recipe": (
        "sweep",
        "recipes/quickstart.yaml",
        "--seeds",
        "2",
        "--dry-run",
    ),
    "sweep of a file": ("sweep", "recipes/ablations/quickstart_grpo.yaml", "--dry-run"),
    "missing": ("plan", "recipes/nothing.yaml"),
    "a sweep is no recipe": ("plan", "recipes/ablations/quickstart_grpo.yaml"),
}
REFUSED = {"run": 2, "data": 3, "missing": 2, "a sweep is no recipe": 2}


@pytest.mark.parametrize(
    "shape",
    ["no recipes here", "other recipes here", "a folder of that name", "in recipes"],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_naming_a_built_in_recipe_imports_nothing_that_lies_here(
    command: str,
    shape: str,
    stranger: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("ALIGN_DATA", raising=False)
    if shape != "no recipes here":
        (stranger / "recipes").mkdir()
    if shape == "other recipes here":
        (stranger / "recipes" / "own.yaml").write_text("extends: grpo_math.yaml\n")
    if shape == "a folder of that name":
        (stranger / "recipes" / "recipes").mkdir()
    if shape == "in recipes":
        monkeypatch.chdir(stranger / "recipes")
    code, said = outcome(capsys, *COMMANDS[command])
    assert not imported(stranger), said
    assert code == REFUSED.get(command, 0), said
    assert "is no kit" not in said


def test_a_recipe_that_lies_here_and_its_kit_win(
    stranger: Path, capsys: pytest.CaptureFixture[str]
):
    (stranger / "recipes").mkdir()
    own = stranger / "recipes" / "quickstart.yaml"
    own.write_text(QUICKSTART.read_text().replace("name: quickstart", "name: mine"))
    _, said = outcome(capsys, "plan", "recipes/quickstart.yaml", "--json")
    assert len(imported(stranger)) == len(kits.PLUGIN_FOLDERS), said
    assert roots(own) == [stranger]


@pytest.mark.parametrize("name", ["x.yaml", "deep/x.yaml"])
def test_a_path_lies_in_a_kit_only_if_the_file_is_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "recipes" / name
    assert roots(file) == []
    file.parent.mkdir(parents=True)
    assert roots(file) == [] and roots(file.parent) == []
    file.write_text("")
    assert roots(file) == [tmp_path]
    monkeypatch.chdir(tmp_path)
    assert roots(file.relative_to(tmp_path)) == [tmp_path]


def test_an_absolute_path_that_is_not_there_is_not_taken_for_a_built_in_one(
    stranger: Path, capsys: pytest.CaptureFixture[str]
):
    code, said = outcome(capsys, "plan", stranger / "recipes" / "quickstart.yaml")
    assert code == 2 and "there is no file" in said
    assert not imported(stranger)
    assert outcome(capsys, "plan", QUICKSTART)[0] == 0
    assert not imported(stranger)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_brings_the_kit_of_the_file_that_is_read(
    linked: str, stranger: Path, capsys: pytest.CaptureFixture[str]
):
    if linked == "file":
        (stranger / "recipes").mkdir()
        (stranger / "recipes" / "quickstart.yaml").symlink_to(QUICKSTART)
    else:
        (stranger / "recipes").symlink_to(QUICKSTART.parent)
    code, said = outcome(capsys, "plan", "recipes/quickstart.yaml")
    assert code == 0, said
    assert not imported(stranger)


def test_a_link_that_leads_nowhere_is_no_file(
    stranger: Path, capsys: pytest.CaptureFixture[str]
):
    (stranger / "recipes").mkdir()
    (stranger / "recipes" / "quickstart.yaml").symlink_to(stranger / "gone.yaml")
    assert outcome(capsys, "plan", "recipes/quickstart.yaml")[0] == 0
    assert not imported(stranger)


OWN = """\
method: sft
model: {path: ./model}
data: {train: {dataset: mine, path: rows.jsonl}}
"""
RUN, SWEEP = ("manifest.json", "recipe.yaml"), ("manifest.json", "sweep.json")
MADE = {
    "run": (RUN, "recipe.yaml"),
    "stage of a run": (RUN, "stages/sft.yaml"),
    "run in a kit's recipes": (RUN, "../recipes/run/recipe.yaml"),
    "recipes in a run": (RUN, "recipes/own.yaml"),
    "kit in a run": (RUN, "kit/recipes/own.yaml"),
    "run called recipes": (RUN, "../recipes/recipe.yaml"),
    "sweep": (SWEEP, "recipes/base-seed0.yaml"),
    "run of a sweep": (SWEEP, "runs/base-seed0/recipe.yaml"),
}


@pytest.mark.parametrize("case", MADE)
def test_a_recipe_in_a_run_or_a_sweep_brings_no_kit(
    case: str, stranger: Path, capsys: pytest.CaptureFixture[str]
):
    """Neither the folder it lies in nor one that its manifest or sweep.json names; the
    user is told of those.
    """
    names, inside = MADE[case]
    file = (stranger / "made" / inside).resolve()
    made = file.parent if inside.startswith("..") else stranger / "made"
    file.parent.mkdir(parents=True)
    named = stranger / "named"
    named.mkdir()
    for folder in {made, file.parent.parent, file.parent, named} - {stranger}:
        plant(folder)
    kit = {"builtin": str(kits.builtin().root), "named": str(named)}
    for name in names:
        (made / name).write_text(json.dumps({"kits": kit}))
    file.write_text(OWN)
    assert roots(file) == []
    code, said = outcome(capsys, "plan", file)
    assert code == 2 and "there is no dataset 'mine'" in said
    assert f"--kit {named}" in said.replace("\n", "")
    assert not imported(stranger)
    link = stranger / "recipes" / "link.yaml"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(file)
    assert roots(link) == []
    outcome(capsys, "plan", file, "--kit", named)
    assert {path.parent.parent for path in imported(stranger)} == {named}


@pytest.mark.parametrize(
    "manifest", ["[]", "{", "{}", '{"kits": 3}', '{"kits": [3]}', "[" * 100_000]
)
def test_a_damaged_manifest_names_no_kits(manifest: str, tmp_path: Path):
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "sweep.json").mkdir()
    assert kits.recorded(tmp_path) == []


def copy_of_builtin(root: Path) -> Path:
    """A checkout's kit, with one reward that says it was imported."""
    (root / "alignkit").mkdir(parents=True)
    (root / "alignkit" / "hookspecs.py").write_text("")
    (root / "recipes").mkdir()
    (root / "rewards").mkdir()
    source = kits.builtin().root
    (root / "rewards" / "exact_match.py").write_text(
        (source / "rewards" / "exact_match.py").read_text() + EVIL
    )
    (root / "recipes" / "one.yaml").write_text("extends: sft_math.yaml\n")
    return root


def test_two_copies_of_the_built_in_kit_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The one that the recipe lies in, else the one that was asked for."""
    first, second = (copy_of_builtin(tmp_path / name) for name in ("first", "second"))
    own = kits.builtin().root

    def found(*recipes: Path, folders: tuple[Path, ...] = ()) -> list[Path]:
        return [
            kit.root for kit in kits.find(recipes, folders) if kit.name == "builtin"
        ]

    monkeypatch.delenv("ALIGN_KITS", raising=False)
    assert found() == [own] and found(QUICKSTART) == [own]
    recipe = first / "recipes" / "one.yaml"
    assert found(recipe) == [first]
    assert found(recipe, folders=(second,)) == [first]
    assert found(QUICKSTART, folders=(second,)) == [second]
    monkeypatch.setenv("ALIGN_KITS", str(second))
    assert found() == [second] and found(recipe) == [first]
    registry = plugins.load(kits.find([recipe]))
    assert registry.get("reward", "exact_match").file.is_relative_to(first)
    assert kits.flags(registry.kits) == ["--kit", str(first)]


def test_a_folder_called_builtin_is_not_taken_for_the_built_in_kit(tmp_path: Path):
    folder = tmp_path / "builtin"
    (folder / "rewards").mkdir(parents=True)
    names = {kit.name: kit.root for kit in kits.find(folders=[folder])}
    assert names["builtin"] == kits.builtin().root
    assert names["kit_builtin"] == folder


def test_the_first_line_says_which_recipe_is_used(
    stranger: Path, capsys: pytest.CaptureFixture[str]
):
    for command in (("plan",), ("sweep", "--seeds", "1", "--dry-run")):
        _, said = outcome(capsys, *command, "recipes/sft_math.yaml")
        with pytest.raises(SystemExit):
            cli.main([*command, "recipes/sft_math.yaml"])
        told = capsys.readouterr().err.splitlines()[0]
        assert told == f"recipe: {QUICKSTART.parent / 'sft_math.yaml'}", said


def test_python_finds_the_recipes_that_come_with_alignkit(stranger: Path):
    assert recipe.load("recipes/quickstart.yaml").path == QUICKSTART
    (stranger / "recipes").mkdir()
    (stranger / "recipes" / "own.yaml").write_text("extends: recipes/sft_math.yaml\n")
    assert recipe.load("recipes/own.yaml").config.method == "sft"


CHILD = """
import sys
from alignkit import kits
print([str(kit.root) for kit in kits.find()])
"""


def test_children_have_the_kits_of_their_parent(stranger: Path):
    kits.mount(kits.at(stranger, "here"))
    (stranger / "alignkit.py").write_text("raise SystemExit('the current folder')")
    command = [sys.executable, "-P", "-c", CHILD]
    said = subprocess.run(command, capture_output=True, text=True, cwd=stranger)
    assert str(stranger) in said.stdout, said.stderr


@pytest.mark.slow
def test_the_first_command_of_the_help_works_in_an_empty_folder(stranger: Path):
    align(
        "run",
        "recipes/quickstart.yaml",
        *SHORT,
        "--folder",
        "run",
        "--only",
        "sft",
        cwd=stranger,
    )
    file = stranger / "run" / "manifest.json"
    manifest = json.loads(file.read_text())
    assert list(manifest["kits"]) == ["builtin"]
    # no kit: such runs can be resumed all the same
    manifest["kits"]["x"] = str(stranger / "run")
    file.write_text(json.dumps(manifest))
    align("run", "--resume", "run", cwd=stranger)
    assert json.loads(file.read_text())["status"] == "done"
    assert (
        "max_steps" in align("diff", "recipes/quickstart.yaml", "run", cwd=stranger).out
    )
    assert "nothing differs" in align("diff", "run", "run", cwd=stranger).out
    assert not imported(stranger)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "sets"),
    [
        ("expert_iteration_math", ("expert_iteration.iterations=1",)),
        ("sft_math", ("launch.processes=2", "train.max_steps=1")),
    ],
)
def test_processes_of_a_run_started_in_an_empty_folder_find_their_kits(
    recipe: str, sets: tuple[str, ...], stranger: Path
):
    rows = '{"question": "1+1?", "truth": "2", "prompt": "a", "response": "b"}\n' * 8
    (stranger / "rows.jsonl").write_text(rows)
    sets = (
        *sets,
        f"data.train={{dataset: jsonl, path: {stranger / 'rows.jsonl'}}}",
        "evals=~",
    )
    changes = [part for text in sets for part in ("--set", text)]
    align(
        "run",
        f"recipes/{recipe}.yaml",
        *MINI,
        *changes,
        "--folder",
        "run",
        cwd=stranger,
    )
    assert (
        json.loads((stranger / "run" / "manifest.json").read_text())["status"] == "done"
    )
    assert not imported(stranger)
