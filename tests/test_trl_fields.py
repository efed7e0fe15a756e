"""The fields of TRL's, PEFT's and transformers' config classes: read from the classes, kept for each version."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit.errors import MissingError
from alignkit.recipe import trl_classes, trl_fields

# The fields whose choices TRL states in the help text only. Another TRL states others: look at each.
IN_HELP = {
    "trl.GRPOConfig": {
        *(
            "vllm_mode",
            "vllm_model_impl",
            "importance_sampling_level",
            "multi_objective_aggregation",
        ),
        *("scale_rewards", "loss_type", "vllm_importance_sampling_mode"),
    },
    "trl.RLOOConfig": {"vllm_mode", "vllm_model_impl"},
    "trl.DPOConfig": {"loss_type", "f_divergence_type"},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and nothing known in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trl_fields.tempfile, "tempdir", str(tmp_path / "temporary"))
    trl_fields._all_fields.cache_clear()
    yield tmp_path / "cache" / "alignkit"
    trl_fields._all_fields.cache_clear()


@pytest.fixture(scope="module")
def answer():
    """What the child process says of the real classes, which takes it seconds."""
    return trl_fields._ask_classes()


@pytest.fixture
def asked(answer, monkeypatch):
    """The times that the classes were asked, with their real answer."""
    times = []
    monkeypatch.setattr(trl_fields, "_ask_classes", lambda: times.append(1) or answer)
    return times


def read():
    trl_fields._all_fields.cache_clear()
    return trl_fields.fields("trl.GRPOConfig")


def test_the_classes_are_asked_once_for_a_version(cache, asked, monkeypatch):
    first = read()
    assert read() == first and len(asked) == 1
    monkeypatch.setattr(trl_fields.metadata, "version", lambda package: "99")
    read()
    assert len(asked) == 2 and len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("0.2", "0.3", 1),
        lambda text: "0\n" + "[" * 100_000,
        lambda text: "\udcff" * 3,
        lambda text: text.split("\n")[0] + "\n{}",
    ],
    ids=["empty", "torn", "changed", "deep", "bytes", "emptied"],
)
def test_a_damaged_answer_is_asked_for_anew(cache, asked, damage):
    first = read()
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole.decode()).encode("utf-8", "surrogateescape"))
    assert read() == first and len(asked) == 2
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    ["[]", '{"trl.GRPOConfig": 3}', '{"trl.GRPOConfig": {"beta": {"x": 1}}}', "null"],
)
def test_a_whole_file_with_something_else_in_it_is_asked_for_anew(
    cache, asked, content
):
    import hashlib

    first = read()
    (file,) = cache.iterdir()
    file.write_text(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}")
    assert read() == first and len(asked) == 2


def test_what_is_no_file_does_not_hold_the_reader_up(cache, asked):
    first = read()
    (file,) = cache.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert read() == first and len(asked) == 2


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(trl_fields.tempfile, "tempdir", str(tmp_path))
    read()
    read()
    assert len(asked) == 1
    (own,) = tmp_path.iterdir()
    assert own.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(trl_fields.tempfile, "tempdir", "/proc/nowhere")
    assert read()["beta"].default == 0.0 and len(asked) == 2


def test_a_home_that_is_not_there_is_no_obstacle(tmp_path, asked, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(trl_fields.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home"))
    )
    read()
    assert [path.name for path in tmp_path.iterdir()] == [f"alignkit-{os.getuid()}"]


def test_a_temporary_folder_that_others_can_write_is_not_trusted(
    tmp_path, asked, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(trl_fields.tempfile, "tempdir", str(tmp_path))
    shared = tmp_path / f"alignkit-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    read()
    assert list(shared.iterdir()) == []


def test_processes_that_ask_at_once_all_get_the_whole_answer(cache, answer, tmp_path):
    canned = tmp_path / "answer.json"
    canned.write_text(answer)
    code = f"""
from pathlib import Path
from alignkit.recipe import trl_fields as f
f._ask_classes = lambda: Path({str(canned)!r}).read_text()
for _ in range(20):
    f._all_fields.cache_clear()
    assert f.fields("trl.SFTConfig")["max_length"].default == 1024
"""
    # the temporary folder of this machine may know the answer
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, env=own) for _ in range(4)]
    assert [process.wait(120) for process in running] == [0] * 4
    assert len(list(cache.iterdir())) == 1


def test_a_package_that_is_missing_or_broken_is_named(cache, monkeypatch):
    monkeypatch.setattr(trl_fields, "CLASSES", ("nowhere.Config",))
    with pytest.raises(MissingError, match="nowhere"):
        read()
    monkeypatch.setattr(trl_fields, "PACKAGES", ("no-such-package",))
    with pytest.raises(MissingError, match=r"no-such-package.* pip install alignkit"):
        read()


def test_the_current_directory_is_not_imported_from(tmp_path, monkeypatch):
    (tmp_path / "probe_config.py").write_text("raise SystemExit('ran a stranger file')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trl_fields, "CLASSES", ("probe_config.Config",))
    with pytest.raises(MissingError, match="No module named 'probe_config'"):
        trl_fields._ask_classes()


def test_choices_that_stand_in_help_texts_only_are_those_known():
    found = {
        config: {
            name
            for name, field in trl_fields.fields(config).items()
            if field.choices_in_help
        }
        for config in trl_fields.CLASSES
    }
    assert {config: names for config, names in found.items() if names} == IN_HELP


def test_every_default_is_one_of_the_choices():
    for config in trl_fields.CLASSES:
        for name, field in trl_fields.fields(config).items():
            words = (
                field.default if isinstance(field.default, list) else [field.default]
            )
            texts = [word for word in words if isinstance(word, str) and word]
            if field.choices:
                assert set(texts) <= set(field.choices), (config, name)


@pytest.mark.slow
def test_the_fields_are_those_of_the_classes():
    import trl
    from peft import LoraConfig

    for config in (
        trl.SFTConfig,
        trl.GRPOConfig,
        trl.RLOOConfig,
        trl.DPOConfig,
        LoraConfig,
    ):
        known = trl_fields.fields(
            f"{config.__module__.partition('.')[0]}.{config.__name__}"
        )
        real = {field.name: field for field in dataclasses.fields(config) if field.init}
        assert set(known) == set(real)
        plain = (
            config(output_dir="x", use_cpu=True, bf16=False)
            if config is not LoraConfig
            else config()
        )
        for name, field in known.items():
            if real[name].default is not dataclasses.MISSING:
                assert field.default == trl_classes.plain(real[name].default), name
            assert json.dumps(field.default) is not None
            assert hasattr(plain, name)


def test_types_become_schemas():
    from enum import Enum
    from typing import Any, Literal, Optional

    class Colour(Enum):
        RED = "red"
        BLUE = "blue"

    @dataclasses.dataclass
    class Inner:
        size: int = 1
        colour: Colour = Colour.RED

    schema = trl_classes.schema
    assert schema(Any) == {} and schema(object()) == {"not": {}}
    assert schema(Optional[int]) == {"anyOf": [{"type": "integer"}, {"type": "null"}]}  # noqa: UP045
    assert schema(Colour | str) == {"enum": ["red", "blue"]}
    assert schema(str | list[Colour])["anyOf"][0] == {"enum": ["red", "blue"]}
    assert schema(str | Literal[False]) == {
        "anyOf": [{"type": "string"}, {"enum": [False]}]
    }
    assert schema(tuple[float, ...]) == {"type": "array", "items": {"type": "number"}}
    assert schema(dict[str, list[int]])["additionalProperties"]["items"] == {
        "type": "integer"
    }
    assert schema(Inner | dict)["properties"] == {
        "size": {"type": "integer"},
        "colour": {"enum": ["red", "blue"]},
    }
    assert schema(Literal["all", "top_[number]"])["anyOf"][1] == {
        "type": "string",
        "pattern": r"^top_\d+$",
    }
