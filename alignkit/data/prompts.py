"""Prompt templates: load them, and fill them with a row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.data.columns import QUESTION_OR_PROMPT
from alignkit.errors import InputError, MissingError, listing
from alignkit.types import Message, Prompt

if TYPE_CHECKING:
    from alignkit.plugins import Registry

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_RESPONSE = "{response}"


def load_prompt(
    spec: str | Mapping[str, Any] | None, registry: Registry
) -> Prompt | None:
    """The prompt of `data.prompt`: a plugin's name, `{template: TEXT}`, None, or
    `{file: PATH, stop: […]}` taken byte for byte.
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        return registry.get("prompt", spec).value
    if "template" in spec:
        return _with_placeholder(Prompt("the recipe's template", spec["template"]))
    path = Path(spec["file"]).expanduser()
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise MissingError(
            f"there is no prompt file {path} (looked in {Path.cwd()})"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8: {error.reason} at byte {error.start}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return _with_placeholder(Prompt(str(path), text, tuple(spec.get("stop", ()))))


def _with_placeholder(prompt: Prompt) -> Prompt:
    if not _PLACEHOLDER.search(str(prompt.template)):
        raise InputError(
            f"{prompt.name}: a prompt needs a placeholder such as {{question}}; there"
            " is none"
        )
    return prompt


def prompt_hash(prompt: Prompt | None) -> str | None:
    """sha256 of the template (of a text template: the same as of its file)."""
    if prompt is None:
        return None
    text = (
        prompt.template
        if isinstance(prompt.template, str)
        else json.dumps([dict(m) for m in prompt.template])
    )
    return hashlib.sha256(text.encode()).hexdigest()


def render(prompt: Prompt | None, row: Mapping[str, Any]) -> str | list[Message]:
    """What the model is given for a row: the template filled in one pass, so that
    braces in values stay as they are.

    `{question}`, `{instruction}`, `{problem}` and `{prompt}` all mean the row's
    question. The template ends before `{response}`. Without a prompt, the row's own
    `prompt` column is used as it is.

    Raises:
        InputError: a placeholder that the row has no column for.
    """
    if prompt is None:
        if "prompt" not in row:
            has = listing(sorted(map(str, row)))
            raise InputError(
                "no prompt is named and the rows have no `prompt` column (they have"
                f" {has}); name one, for instance `prompt: question_only`"
            )
        if not isinstance(row["prompt"], str | list):
            raise InputError(
                f"the prompt is {row['prompt']!r:.80}; expected a text, or a list of"
                " messages with role and content"
            )
        return row["prompt"]
    if isinstance(prompt.template, str):
        return _fill(prompt, prompt.template.partition(_RESPONSE)[0], row)
    filled: list[Message] = []
    for message in prompt.template:
        before, response, _ = message["content"].partition(_RESPONSE)
        if before or not response:
            filled.append(
                {"role": message["role"], "content": _fill(prompt, before, row)}
            )
        if response:
            break
    return filled


def render_pair(
    prompt: Prompt | None, row: Mapping[str, Any]
) -> tuple[str | list[Message], str]:
    """(prompt, response) of a training row; the response ends with what the template
    has after `{response}`.
    """
    if not isinstance(row.get("response"), str):
        raise InputError(
            "a supervised row needs a text `response`; it has"
            f" {listing(sorted(map(str, row)))}"
        )
    tail = ""
    if prompt is not None and isinstance(prompt.template, str):
        tail = prompt.template.partition(_RESPONSE)[2]
    return render(prompt, row), row["response"] + tail


def _fill(prompt: Prompt, template: str, row: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in row and name in QUESTION_OR_PROMPT:
            name = next((other for other in QUESTION_OR_PROMPT if other in row), name)
        if not isinstance(row.get(name), str | int | float):
            has = listing(sorted(map(str, row)))
            raise InputError(
                f"prompt '{prompt.name}' needs a text for {{{match[1]}}}; the row has"
                f" the columns {has}"
            )
        return str(row[name])

    return _PLACEHOLDER.sub(value, template)
