"""The prompts and parsers of the alpaca-eval library's judges, with what a judge answers
kept as material: no reply can write a message of its own.
"""

import contextlib
import importlib.util
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignkit import InputError

from ._alpaca import left_as_found
from ._alpaca_orders import Messages, Share

PARSERS = ("regex_parser", "ranking_parser", "lmsys_parser", "json_parser", "eval_parser", "replace_parser",
           "logprob_parser", "pipeline_meta_parser")  # fmt: skip
MAX_CHARS = 100_000  # of an answer
_FIELD = re.compile(r"\{([^ \s{}]+)\}")
_MESSAGE = re.compile(r"<\|im_start\|>(.*?)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, SyntaxError, RecursionError,
               MemoryError)  # fmt: skip


def asking(file: Path, name: str) -> tuple[str, Callable[[str, str, str], Messages]]:
    """The text of a template, and what asks with it about (instruction, first, second).

    Its path is relative to the folder above the config's, as in the library, to the
    config's, or to the library's own.

    Raises:
        InputError: there is none, or it has fields of another kind.
    """
    template = _template(file, name)
    fields = sorted(_FIELD.findall(template))
    if fields != ["instruction", "output_1", "output_2"]:
        raise InputError(
            f"{file}: the prompt {name!r:.80} has the fields {', '.join(fields) or 'none'};"
            " expected instruction, output_1 and output_2, once each"
        )
    messages = [
        (role.strip(), text.strip()) for role, text in _MESSAGE.findall(template)
    ]
    if {role for role, _ in messages} - {"system", "user", "assistant"} or not messages:
        raise InputError(
            f"{file}: the prompt {name!r:.80} is no chat; expected messages between"
            " <|im_start|>system, user or assistant and <|im_end|>"
        )

    def ask(instruction: str, first: str, second: str) -> Messages:
        values = {"instruction": instruction, "output_1": first, "output_2": second}
        return [
            {"role": role, "content": _FIELD.sub(lambda m: values[m[1]], text)}
            for role, text in messages
        ]

    return template, ask


def library_configs() -> Path:
    """Where the library keeps its own judges."""
    library = importlib.util.find_spec("alpaca_eval")
    assert library is not None and library.origin is not None
    return Path(library.origin).parent / "evaluators_configs"


def _template(file: Path, name: str) -> str:
    here = file.absolute().parent
    homes = [here.parent, here, library_configs()]
    for home in homes:
        path = (home / name).resolve()
        if path.is_relative_to(home.resolve()) and path.is_file():
            return path.read_text(encoding="utf-8")
    if "<|im_start|>" in name:
        return name
    raise InputError(
        f"{file}: there is no prompt {name!r:.80} in {', '.join(map(str, homes))}"
    )


def share(file: Path, parser: str, options: Mapping[str, Any], whole: bool) -> Share:
    """What the library's parser reads in an answer, as the share of the first reply;
    `whole`: it reads the log-probs of the tokens.
    """
    with left_as_found():
        from alpaca_eval import completion_parsers

    read = vars(completion_parsers)[parser]
    steps = {parser: options, **options.get("parsers_to_kwargs", {})}
    for name, stated in steps.items():
        if name not in PARSERS:
            raise InputError(f"{file}: there is no parser {name!r}")
        try:
            inspect.signature(vars(completion_parsers)[name]).bind("", **stated)
            for pattern in stated.get("outputs_to_match", {}).values():
                re.compile(pattern)
        except (TypeError, re.error) as error:
            raise InputError(f"{file}: parser {name!r}: {error}") from None

    def first(answer: str) -> float | None:
        if len(answer) > MAX_CHARS:
            return None
        with _quiet():
            try:
                (preference,) = read(json.loads(answer) if whole else answer, **options)
                preference = float(preference)
            except _UNREADABLE:
                return None
        if preference == 0:
            return 0.5
        return 2 - preference if 1 <= preference <= 2 else None

    return first


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library logs each answer that it cannot read as an error."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def arguments(choice: Mapping[str, Any]) -> str | None:
    """What a tool was called with."""
    message = choice["message"]
    for call in message.get("tool_calls") or ():
        return str(call["function"]["arguments"])
    called = message.get("function_call")
    return str(called["arguments"]) if called else None


def scores(choice: Mapping[str, Any]) -> str | None:
    """The log-probs of the tokens, as text of the form that the parsers read."""
    tokens = [
        {
            "top_logprobs": [
                {"token": str(t["token"]), "logprob": float(t["logprob"])}
                for t in token["top_logprobs"]
            ]
        }
        for token in (choice.get("logprobs") or {}).get("content") or ()
    ]
    # no thought ends in it
    text = json.dumps({"logprobs": {"content": tokens}}).replace("<", "\\u003c")
    return text if tokens else None
