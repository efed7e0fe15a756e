"""Judges as the alpaca-eval library describes them (`configs.yaml`). What cannot be
honoured is refused by name.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from alignkit import InputError, JudgeConfig

from ._alpaca import needs_library
from ._alpaca_orders import comparing
from ._alpaca_parsing import (
    PARSERS,
    arguments,
    asking,
    library_configs,
    scores,
    share,
)

_KEYS = (
    "prompt_template",
    "fn_completions",
    "completions_kwargs",
    "fn_completion_parser",
    "completion_parser_kwargs",
    "completion_key",
    "batch_size",
    "is_randomize_output_order",
    "processors_to_kwargs",
    "pretty_name",
    "link",
)
_DRAWN = ("model_name", "max_tokens", "temperature", "top_p", "price_per_token", "requires_chatml")  # fmt: skip
# what goes into each request as it stands
_SENT = ("tools", "tool_choice", "functions", "function_call", "logprobs", "top_logprobs", "response_format",
         "logit_bias", "presence_penalty", "frequency_penalty", "seed", "reasoning_effort")  # fmt: skip
_VALUES: Mapping[str, tuple[Any, ...]] = {
    "fn_completions": ("openai_completions",),
    "batch_size": (1,),
    "completion_key": ("completions", "completions_all"),
    "is_randomize_output_order": (True, False),
    "processors_to_kwargs": ({}, {"ChainOfThoughtProcessor": {}}),
    "requires_chatml": (True,),
    "fn_completion_parser": PARSERS,
}
_HINTS = {
    "client_kwargs": "name the server by --judge-base-url and its key by --judge-key",
    "num_procs": "say --concurrency",
}


def read_config(path: str) -> JudgeConfig:
    """The judge of a file, of a folder with a `configs.yaml`, or of that name in the
    library.

    Raises:
        InputError: no such file, or all that it asks for and that cannot be had.
        MissingError: without the library, whose parsers read the answers.
    """
    needs_library()
    file = Path(path) if Path(path).exists() else library_configs() / path
    if file.is_dir():
        file /= "configs.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--judge-config {path}: {error}") from None
    entries = list(config.values()) if isinstance(config, dict) else []
    if len(entries) != 1 or not isinstance(entries[0], dict):
        raise InputError(
            f"{file}: expected one judge, `NAME: {{prompt_template: …}}`, as in the"
            f" library's configs.yaml; it has {len(entries)}"
        )
    entry = entries[0]
    how = entry.get("completions_kwargs") or {}
    problems = list(_problems(entry, _KEYS))
    if not problems:
        # of another client the settings are others too
        problems = list(_problems(how, (*_DRAWN, *_SENT)))
    if problems:
        raise InputError(*(f"{file}: {problem}" for problem in problems))
    template, ask = asking(file, str(entry.get("prompt_template", "")))
    whole = entry.get("completion_key") == "completions_all"
    parser = entry.get("fn_completion_parser", "regex_parser")
    options = entry.get("completion_parser_kwargs") or {}
    try:
        # the library's defaults
        sampling = {
            "temperature": float(how.get("temperature", 0.7)),
            "top_p": float(how.get("top_p", 1.0)),
            "max_new_tokens": int(how.get("max_tokens", 2048)),
        }
        price = float(how.get("price_per_token", "nan")) * 1e6
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: completions_kwargs: {error}") from None
    read = json.dumps([entry, template], default=str)
    return JudgeConfig(
        task=comparing(
            ask,
            share(file, parser, options, whole),
            sampling,
            fixed=not entry.get("is_randomize_output_order", True),
        ),
        judge="openai",
        model=str(how.get("model_name", "")),
        sha256=hashlib.sha256(read.encode()).hexdigest(),
        price=None if math.isnan(price) else price,
        fields={name: value for name, value in how.items() if name in _SENT},
        read_choice=scores if whole else arguments,
    )


def _problems(stated: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[str]:
    for name, value in stated.items():
        if name not in known:
            does = _HINTS.get(name, f"only {', '.join(known)}")
            yield f"{name} is not done here: {does}"
        elif name in _VALUES and value not in _VALUES[name]:
            allowed = ", ".join(map(str, _VALUES[name]))
            yield f"{name} is {value!r}; done here: {allowed}"
