"""Outside a checkout: a recipe that comes with alignkit runs anywhere, and brings no
code that lies beside the user.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import align

from alignkit import cli, kits

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
    recipe = tmp_path / "recipes" / name
    assert roots(recipe) == []
    recipe.parent.mkdir(parents=True)
    assert roots(recipe) == [] and roots(recipe.parent) == []
    recipe.write_text("")
    assert roots(recipe) == [tmp_path]
    monkeypatch.chdir(tmp_path)
    assert roots(recipe.relative_to(tmp_path)) == [tmp_path]


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


@pytest.mark.parametrize(
    "inside", ["recipe.yaml", "stages/sft.yaml", "iterations/001/sft.yaml"]
)
def test_what_a_run_wrote_has_the_kits_the_run_was_started_with(
    inside: str, tmp_path: Path
):
    """Also where the run lies below a folder named recipes, which is no kit of its."""
    kit, gone, run = (
        tmp_path / "mykit",
        tmp_path / "gone",
        tmp_path / "recipes" / "runs" / "one",
    )
    (kit / "rewards").mkdir(parents=True)
    (run / inside).parent.mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    (run / inside).write_text("")
    recorded = {
        "builtin": str(kits.builtin().root),
        "mykit": str(kit),
        "gone": str(gone),
        "x": str(tmp_path / "x"),
    }
    # as runs record that were started by naming a built-in recipe in an empty folder
    (tmp_path / "x").mkdir()
    (run / "manifest.json").write_text(json.dumps({"kits": recorded}))
    assert roots(run / inside) == [kit]


@pytest.mark.parametrize(
    "manifest", ["[]", "{", "{}", '{"kits": 3}', '{"kits": ["a"]}']
)
def test_another_programs_manifest_beside_a_recipe_is_not_read(
    manifest: str, tmp_path: Path
):
    recipe = tmp_path / "recipes" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text("")
    (recipe.parent / "manifest.json").write_text(manifest)
    assert roots(recipe) == [tmp_path]


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
