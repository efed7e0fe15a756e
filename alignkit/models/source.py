"""What a recipe's or command's model path means, and what to say when it is no model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from alignkit.errors import InputError, MissingError, first_line, listing
from alignkit.run import files

# What transformers raises for files that say what it did not foresee.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def resolve(path: str, revision: str | None = None) -> str:
    """The folder or Hub id that `path` means; InputError when it can be neither."""
    local = Path(path).expanduser()
    if local.is_dir():
        if revision is not None:
            raise InputError(
                f"model: revision {revision!r} was given, but {path} is a folder;"
                " revisions are the Hub's"
            )
        if (local / "manifest.json").is_file():
            return str(_of_run(local))
        held = sorted(entry.name for entry in local.iterdir())
        if not {"config.json", "adapter_config.json"} & set(held):
            raise InputError(
                f"{path} is no model: it has no config.json; it holds"
                f" {listing(held, 10) or 'nothing'}"
            )
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
            if name in held:
                read_json(local / name)
        return str(local)
    if local.exists():
        raise InputError(
            f"{path} is a file; a model is a folder (with config.json), a run folder,"
            " or a Hub id"
        )
    if path.startswith("runs/") or not re.fullmatch(r"[\w.-]*\w(/[\w.-]*\w)?", path):
        raise InputError(
            f"model: there is no folder {path}, and a Hub id has the form owner/name"
        )
    return path


def _of_run(run: Path) -> Path:
    """The final model of a run folder."""
    if (run / "sweep.json").is_file():
        models = sorted(str(p.parents[1]) for p in run.glob("runs/*/model/config.json"))
        models += sorted(
            str(p.parents[1]) for p in run.glob("runs/*/stages/*/model/config.json")
        )
        raise InputError(
            f"{run} is a sweep; name the run whose model is meant:"
            f" {listing(models, 5) or 'none has one yet'}"
        )
    if (run / "model" / "config.json").is_file():
        return run / "model"
    stages = sorted(
        str(p.parent.parent) for p in run.glob("stages/*/model/config.json")
    )
    if stages:
        raise InputError(
            f"{run} is a pipeline; name the stage whose model is meant:"
            f" {listing(stages, 5)}"
        )
    checkpoints = sorted(str(p) for p in run.glob("checkpoints/*") if p.is_dir())
    hint = ""
    if checkpoints:
        hint = f"; one of its checkpoints can be given: {listing(checkpoints, 5)}"
    raise InputError(
        f"{run} is a run without a final model (model/ is not there: it has not"
        f" finished){hint}"
    )


def base_of(source: str, revision: str | None) -> tuple[str, str | None]:
    """The model under a folder that holds only a PEFT adapter; any other source is its
    own.
    """
    adapter = Path(source) / "adapter_config.json"
    if not adapter.is_file() or (Path(source) / "config.json").is_file():
        return source, revision
    settings = read_json(adapter)
    return resolve(_base(adapter, settings)), settings.get("revision")


def _base(adapter: Path, settings: dict[str, Any]) -> str:
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str):
        raise InputError(f"{adapter} names no base_model_name_or_path")
    return base


def read_json(file: Path) -> dict[str, Any]:
    return files.read_json(file)


@contextmanager
def explained(source: str, what: str) -> Iterator[None]:
    """Turn what transformers raises for a bad source into one line for the user."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        if Path(source).is_dir():
            held = listing(sorted(entry.name for entry in Path(source).iterdir()), 10)
            raise InputError(
                f"{source}: {what} cannot be loaded: {first_line(error)} It holds"
                f" {held}."
            ) from error
        raise MissingError(
            f"model '{source}': no such folder here, not in the Hub cache, and the Hub"
            f" gave nothing ({first_line(error)}). Check the name, pass a folder, or"
            f" where there is a network: hf download {source}"
        ) from error
    except UnpicklingError as error:
        raise InputError(
            f"{source}: {what} cannot be loaded: its weights are a pickle that holds"
            " more than tensors, which could run anything here. Take weights in"
            " safetensors"
        ) from error
    except (*_FAULTS, SafetensorError, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{source}: {what} cannot be loaded: it wants code of its own to be run"
                " (auto_map), and code of a model is never run here. Take a model that"
                " transformers knows"
            ) from error
        raise InputError(
            f"{source}: {what} cannot be loaded: {first_line(error)}"
        ) from error
    except Exception as error:
        if type(error) is not Exception:  # what tokenizers raises, and nothing narrower
            raise
        raise InputError(
            f"{source}: {what} cannot be loaded: {first_line(error)}"
        ) from error
