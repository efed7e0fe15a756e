"""The house keeps its shape: layers, exports, hooks, plugins, start-up."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import alignkit
from alignkit import hookspecs, kits, plugins

ROOT = Path(alignkit.__file__).parent
# Rows of docs/architecture.md, lowest first, each of one or more rooms; a module imports
# only from rooms of lower rows and from its own room.
ROWS = [
    ["errors", "json_text"],
    ["types benchmarks executors sampling thinking"],
    ["hookspecs kits plugins", "functional", "run", "machine", "terminal"],
    ["course"],
    ["recipe"],
    ["models", "grading", "endpoint", "records"],
    ["engines"],
    ["data"],
    ["provenance"],
    ["evaluate", "proofs", "checks"],
    ["train"],
    ["conformance", "plan", "graders"],
    ["sweep", "report"],
    ["view", "notebook"],
    ["cli"],
]
PLACE_OF = {
    name: (row, room)
    for row, rooms in enumerate(ROWS)
    for room in rooms
    for name in room.split()
}
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = {
    "torch",
    "trl",
    "transformers",
    "datasets",
    "peft",
    "accelerate",
    "pandas",
    "matplotlib",
    "scipy",
    "sympy",
    "vllm",
}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_rows_or_its_own_room(path: Path):
    here = room(path)
    if here in ("__init__", "kit"):
        return
    assert here in PLACE_OF, f"{here} has no row; give it one"
    row, own_room = PLACE_OF[here]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "alignkit" or len(parts) < 2 or parts[1] not in PLACE_OF:
            continue
        other_row, other_room = PLACE_OF[parts[1]]
        assert other_room == own_room or other_row < row, (
            f"{path.name} imports {name}, which lies in no lower row"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_heavy_is_imported_at_start_up(path: Path):
    if room(path) in (
        "train",
        "models",
        "functional",
        "course",
        "engines",
        "conformance",
        "proofs",
    ):
        return
    assert not {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_core_modules_stay_small(path: Path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_exports_are_sorted_and_all_exist():
    assert alignkit.__all__ == sorted(alignkit.__all__)
    for name in alignkit.__all__:
        assert getattr(alignkit, name) is not None


KIT_FILES = sorted(
    file
    for folder in kits.PLUGIN_FOLDERS
    for file in (kits.builtin().root / folder).glob("*.py")
)


@pytest.mark.parametrize("file", KIT_FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_built_in_plugin_uses_only_the_public_api_and_helpers_beside_it(file: Path):
    for name in imports(file):
        first, _, exported = name.partition(".")
        assert first not in kits.PLUGIN_FOLDERS, f"{file.name} imports another plugin"
        assert first != "alignkit" or exported in alignkit.__all__, (
            f"{file.name} imports {name}"
        )
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and (node.module or "").startswith("_"), (
                f"{file.name} imports {'.' * node.level}{node.module}"
            )


@pytest.mark.parametrize("file", KIT_FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_built_in_plugin_is_short(file: Path):
    limit = 200 if file.name.startswith("_") else 100
    assert len(file.read_text().splitlines()) < limit


# Names of plugins that mean something else in the core.
OTHER_WORDS = {
    "arithmetic",  # that of a plan's batches; the quickstart's task, as an example
    "local",  # the plain word
    "localhost",  # this machine
    "math",  # Python's module, and the subject
    "openai",  # the protocol
    "reward_model",  # a kind of model
    "together",  # the plain word
    "vllm",  # the engine
}
# Where a name is meant and may stand.
MAY_NAME = {
    "__init__.py": {"alpaca", "gsm8k", "mmlu"},  # where 0.1's exports lie now
    "course/__init__.py": {"gsm8k", "mmlu"},  # functions of the course
    "course/edition_2026.py": {"gsm8k", "mmlu"},  # the same of 2026
    "machine/doctor.py": {"alpaca", "nvidia"},  # the package alpaca-eval, nvidia-smi
    "machine/here.py": {"alpaca"},
    "provenance/fingerprint.py": {"alpaca"},  # a version that plugins count
    "machine/versions.py": {"alpaca"},
    "machine/gpus.py": {"nvidia"},
}


def names_in(path: Path, names: set[str]) -> set[str]:
    words = re.findall(r"[a-z0-9.]+", path.read_text().lower())
    text = " " + " ".join(word.strip(".") for word in words) + " "
    return {n for n in names if f" {n.lower().replace('_', ' ')} " in text}


def test_the_core_knows_no_benchmark_judge_or_host_by_name():
    registry = plugins.load([kits.builtin()])
    names = {p.name for kind in ("eval", "judge") for p in registry.all(kind)}
    urls = [p.value.base_url for p in registry.all("judge")]
    names |= {str(urlsplit(url).hostname) for url in urls if url}
    assert names > OTHER_WORDS and len(names) > 20
    found = {
        str(path.relative_to(ROOT)): names_in(path, names - OTHER_WORDS)
        for path in MODULES
    }
    assert {file: known for file, known in found.items() if known} == MAY_NAME


def test_plugin_folders_are_no_packages():
    for folder in kits.FOLDERS:
        assert not list((kits.builtin().root / folder).rglob("__init__.py"))


def test_every_hook_is_documented_and_used():
    registry = plugins.load([kits.builtin()])
    for kind, (hook, _) in plugins.KINDS.items():
        assert (getattr(hookspecs, hook).__doc__ or "").strip(), hook
        assert registry.names(kind), f"no built-in plugin uses {hook}"


def test_help_starts_without_heavy_packages():
    code = (
        "import sys, alignkit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit:"
        " pass\nprint(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    loaded = done.stdout.splitlines()[-1]
    for name in (*HEAVY, "pydantic", "rich", "ruamel.yaml", "pluggy"):
        assert f"'{name}'" not in loaded, name


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "recipes/grpo_math.yaml"],
        ["diff", "recipes/grpo_math.yaml", "recipes/rloo_math.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_a_recipe_whose_model_is_not_here_is_read_without_heavy_packages(
    command, tmp_path
):
    code = (
        f"import sys, alignkit.cli as c\ntry: c.main({command})\nexcept SystemExit as e:"
        " print('exit', e.code)\nprint(sorted(sys.modules))"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    offline.pop("ALIGN_DATA", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=offline
    )
    *_, exited, loaded = done.stdout.splitlines()
    assert exited in ("exit 3", "exit 0"), done.stdout + done.stderr
    for name in ("torch", "transformers", "trl", "peft"):
        assert f"'{name}'" not in loaded, name


def test_loading_all_plugins_imports_nothing_heavy():
    code = (
        "import sys\nfrom alignkit import kits,"
        " plugins\nplugins.load(kits.find())\nprint(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for name in HEAVY:
        assert f"'{name}'" not in done.stdout, name


def test_the_page_of_the_architecture_names_what_is_there():
    page = (ROOT.parent / "docs" / "architecture.md").read_text().replace("\n", " ")
    stops = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py): ([\w.]+)`", page)
    assert len(stops) > 15
    for file, names in stops:
        text = (ROOT / file).read_text()
        for name in names.split("."):
            assert re.search(rf"\b{name}\b", text), f"{file}: {name}"


def test_modules_import_in_no_circle():
    """Also not for types, and not inside of functions."""
    names = {}
    for path in MODULES:
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    graph = {}
    for name, path in names.items():
        known = {
            full if full in names else full.rpartition(".")[0] for full in imports(path)
        }
        graph[name] = (known & names.keys()) - {name, name.rpartition(".")[0]}
    while True:
        used = set().union(*graph.values())
        ends = [
            n for n, uses in graph.items() if not uses & graph.keys() or n not in used
        ]
        if not ends:
            break
        for name in ends:
            del graph[name]
    assert not graph, sorted(graph)


# Where `json.loads` may stand: the one bounded reader, and what this process wrote.
READS_JSON = {
    "json_text.py": "the reader",
    "endpoint/permits.py": "a variable that a parent process set",
    "grading/worker.py": "an argument that the parent process wrote",
    "kits/__init__.py": "a variable that a parent process set",
    "train/pipeline.py": "a copy of what was just written",
}


def test_json_of_others_is_read_by_one_bounded_reader():
    """It may come from anywhere: numbers of 5,000 digits, a thousand brackets."""
    found = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if re.search(r"\bjson\.loads?\(", path.read_text())
    }
    assert found == set(READS_JSON)
