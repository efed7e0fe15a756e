"""Requests of lm-evaluation-harness as rows: prompts, choices, how answers are drawn."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from alignkit import InputError

from ._lm_tasks import Loaded

SEED = 1234  # of examples, as lm-eval draws them by default
MAX_TOKENS = 256  # of a generated answer where a task does not say
_SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty")
_NO_BEAMS = {"num_beams": 1}


def build(
    task: Any, *, shots: int | None, chat: bool, multiturn: bool, system: str | None
) -> dict[int, list[Any]]:
    """The requests of a task by question, with examples as lm-eval draws them."""
    own = task.get_config("num_fewshot")
    if shots is not None and own == 0 != shots:
        raise InputError(
            f"lm:{task.task_name} shows no examples by its own settings; leave shots out"
        )
    task.set_config("num_fewshot", (own or 0) if shots is None else shots)
    task.set_fewshot_seed(SEED)
    with contextlib.redirect_stderr(io.StringIO()):  # a bar for every task
        task.build_all_requests(
            system_instruction=system,
            apply_chat_template=chat,
            fewshot_as_multiturn=multiturn,
            chat_template=_messages if chat else None,
        )
    by_question: dict[int, list[Any]] = defaultdict(list)
    for request in task.instances:
        by_question[request.doc_id].append(request)
    for requests in by_question.values():
        requests.sort(key=lambda request: request.idx)
    return dict(sorted(by_question.items()))


def _messages(
    messages: list[dict[str, str]], add_generation_prompt: bool = True
) -> str:
    """In the place of a model's template, which the engine applies."""
    if not add_generation_prompt:
        raise InputError("a task that begins the model's answer goes without chat")
    return json.dumps(messages)


def row_of(name: str, doc: int, requests: Sequence[Any], chat: bool) -> dict[str, Any]:
    """The row of one question: its prompt, and its choices or how it is sampled."""
    row: dict[str, Any] = {"id": f"{name}/{doc}", "task": name, "doc": doc}
    kinds = {request.request_type for request in requests}
    if kinds == {"generate_until"} and len(requests) == 1:
        context, settings = requests[0].args
        read = json.loads if chat else str
        return row | {"prompt": read(context), "sampling": _sampling(name, settings)}
    if kinds != {"loglikelihood"}:
        raise InputError(
            f"lm:{name} asks for {', '.join(sorted(kinds))} of one question"
        )
    pairs = [request.args[:2] for request in requests]
    if chat:
        contexts = [json.loads(context) if context else "" for context, _ in pairs]
        return row | {"contexts": contexts, "choices": [one for _, one in pairs]}
    # a space before an answer is part of its first token
    moved = [(text.rstrip(), text[len(text.rstrip()) :] + one) for text, one in pairs]
    return row | {
        "contexts": [c for c, _ in moved],
        "choices": [one for _, one in moved],
    }


def truth_of(loaded: Loaded, doc: int) -> str | int | None:
    """What the task compares with, where it is a text or a number."""
    target = loaded.task.doc_to_target(loaded.requests[doc][0].doc)
    return target if isinstance(target, str | int) and target != "" else None


def _sampling(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    from lm_eval.models.utils import normalize_gen_kwargs

    stated = dict(normalize_gen_kwargs(dict(settings), MAX_TOKENS))
    stop = [text for text in stated.pop("until") if text]
    known = {"max_new_tokens": stated.pop("max_gen_toks"), "stop": tuple(stop)}
    known["temperature"] = stated.pop("temperature", 0.0)
    drawn = stated.pop("do_sample")
    beyond = {
        k: v for k, v in stated.items() if k not in _SAMPLING and _NO_BEAMS.get(k) != v
    }
    if beyond:
        raise InputError(f"lm:{name} generates with {beyond}, which no engine knows")
    if drawn:
        known |= {k: v for k, v in stated.items() if k in _SAMPLING}
    return known
