"""From prompts and responses to tokens: one way, for training, rollouts and evals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError, first_line
from alignkit.models.bounds import within

if TYPE_CHECKING:
    from alignkit.types import Message

    Prompt = str | Sequence[Message]

# Stands for a response where a template is tried; no template changes it.
_ANSWER = "ANSWER"
RENDERING = 5.0  # seconds that a template may take for one conversation
LONGEST = 100_000  # characters that a template may add
# What a template, which is a model's own code, may raise besides jinja's errors.
_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TimeoutError,
    TypeError,
    ValueError,
)
# Before a response, to see which tokens it has in the middle of a text.
_ANCHORS = ("\n", ":", ">")


def set_template_options(tokenizer: Any, options: Mapping[str, Any] | None) -> None:
    """What a chat template is rendered with (`train.chat_template_kwargs`), wherever
    this tokenizer renders one.
    """
    tokenizer.template_options = dict(options or {})


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The tokens of a prompt: a text with the tokenizer's own start token, a chat with
    its template's. No end token, which a tokenizer may add to every text.
    """
    if not isinstance(prompt, str):
        text = render_chat(tokenizer, prompt)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    end, start = tokenizer.eos_token_id, tokenizer.bos_token_id
    ids = list(tokenizer(prompt)["input_ids"])
    if ids[-1:] == [end]:
        bare = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        while _trailing(ids, end) > _trailing(bare, end):
            ids.pop()
    # a text that was rendered elsewhere may begin with its start token
    return ids[1:] if start is not None and ids[:2] == [start, start] else ids


def _trailing(ids: Sequence[int], token: int) -> int:
    return next((n for n, one in enumerate(reversed(ids)) if one != token), len(ids))


def response_ids(tokenizer: Any, response: str) -> list[int]:
    """The tokens of a response behind its prompt, ended by one end token.

    They are tokenised apart, so that no token spans both (as CS336 does). Where a
    tokenizer writes a space before every text, the response is tokenised in the middle
    of one.
    """
    ids = list(tokenizer(response, add_special_tokens=False)["input_ids"])
    if adds_space(tokenizer):
        ids = _inside(tokenizer, response) or ids
    end = tokenizer.eos_token_id
    while ids and ids[-1] == end:
        ids.pop()
    return [*ids, end]


def adds_space(tokenizer: Any) -> bool:
    """Whether two texts that are tokenised apart gain a space between them."""
    known = vars(tokenizer)
    if "adds_space" not in known:
        ids = list(tokenizer("1", add_special_tokens=False)["input_ids"])
        apart = str(tokenizer.decode([*ids, *ids])).strip()
        inside = _inside(tokenizer, "1")
        tokenizer.adds_space = apart == "1 1" and inside not in (None, ids)
    return bool(known["adds_space"])


def _inside(tokenizer: Any, text: str) -> list[int] | None:
    for anchor in _ANCHORS:
        before = tokenizer(anchor, add_special_tokens=False)["input_ids"]
        whole = tokenizer(anchor + text, add_special_tokens=False)["input_ids"]
        if whole[: len(before)] == before:
            return list(whole[len(before) :])
    return None


def parted(tokenizer: Any, prompt: Prompt, response: str) -> tuple[str, str]:
    """The text of a prompt and of its response, with what a chat template writes around
    the response.

    A template that writes another text for the answer than was given (some leave out
    what a model thought) is only asked for what stands around it.
    """
    if isinstance(prompt, str):
        return prompt, response
    text = render_chat(tokenizer, prompt)
    opened = prompt[-1]["role"] == "assistant"
    head = list(prompt[:-1]) if opened else list(prompt)
    begun = prompt[-1]["content"] if opened else ""

    def answered(answer: str) -> str:
        messages = [*head, {"role": "assistant", "content": begun + answer}]
        return _rendered(tokenizer, messages, add_generation_prompt=False)

    whole = answered(response)
    if not whole.startswith(text) or response.strip() not in whole[len(text) :]:
        whole = answered(_ANSWER)
        before, found, after = whole.removeprefix(text).partition(_ANSWER)
        if not whole.startswith(text) or not found:
            raise InputError(
                "the chat template renders a conversation differently once it is"
                " answered, so its prompt cannot be masked; use a text prompt, or"
                " another template"
            )
        whole = text + before + response + after
    end = whole.rfind(tokenizer.eos_token)
    stop = end + len(tokenizer.eos_token) if end > len(text) else None
    return text, whole[len(text) : stop]


def pair_ids(
    tokenizer: Any, prompt: Prompt, response: str
) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and of its response, which has the end token at its end."""
    _, tail = parted(tokenizer, prompt, response)
    return prompt_ids(tokenizer, prompt), response_ids(tokenizer, tail)


def render_chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """A chat as text, up to where the answer begins; an answer begun in the prompt is
    gone on with.

    Raises:
        InputError: there is no template, or it refuses these messages.
    """
    if messages[-1]["role"] != "assistant":
        return _rendered(tokenizer, messages, add_generation_prompt=True)
    return _rendered(
        tokenizer,
        messages,
        add_generation_prompt=False,
        continue_final_message=True,
    )


def _rendered(tokenizer: Any, messages: Sequence[Any], **how: bool) -> str:
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise InputError(
            "the prompt is a list of chat messages, but the tokenizer of"
            f" {tokenizer.name_or_path} has no chat template; use a text prompt"
        )
    options = vars(tokenizer).get("template_options", {})
    asked = [dict(message) for message in messages]
    where = f"the chat template of {tokenizer.name_or_path}"
    try:
        with within(RENDERING):
            text: str = tokenizer.apply_chat_template(
                asked, tokenize=False, **how, **options
            )
    except (TemplateError, *_FAULTS) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise InputError(
            f"{where} refuses messages of the roles {roles}:"
            f" {first_line(error) or type(error).__name__}. Put what stands there into"
            " the user's message, or take a model whose template takes it"
        ) from error
    if len(text) > LONGEST + 100 * sum(len(str(m["content"])) for m in messages):
        raise InputError(f"{where} makes {len(text):,} characters of one conversation")
    return text


def each(
    rows: Sequence[Mapping[str, Any]],
    encode: Callable[[Mapping[str, Any]], Any],
    what: str,
) -> list[Any]:
    """What `encode` makes of every row; its fault names the row.

    Raises:
        InputError: `what` and the row's number, with the reason.
    """
    encoded = []
    for number, row in enumerate(rows):
        try:
            encoded.append(encode(row))
        except InputError as error:
            raise InputError(f"{what}, row {number}: {error}") from error
    return encoded
