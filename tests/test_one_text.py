"""One prompt, one text: tokenizers by chat templates by methods."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as cores
from transformers import PreTrainedTokenizerFast

from alignkit.data import encode
from alignkit.engines.prompts import PromptCoder
from alignkit.errors import InputError
from alignkit.models import text
from alignkit.train.rollouts import Rollouts

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
TURNS = "{{- '[' + m.role + ']' + m.content + '<|end|>' -}}"
OPENED = "{%- if add_generation_prompt -%}{{- '[assistant]' -}}{%- endif -%}"
REASONING = (
    "{%- if m.role == 'assistant' and '</think>' in m.content -%}"
    "{{- '[assistant]' + m.content.split('</think>')[-1] + '<|end|>' -}}"
    "{%- else -%}" + TURNS + "{%- endif -%}"
)


def template(turn: str = TURNS, before: str = "", after: str = "") -> str:
    turns = "{%- for m in messages -%}" + turn + "{%- endfor -%}"
    return before + turns + OPENED + after


REFUSED = "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}"
TEMPLATES = {
    "plain": template(),
    "start": template(before="{{- bos_token or '' -}}"),
    "reasoning": template(REASONING),
    "newline": template(TURNS + "{{- '\\n' -}}"),
    "option": template(before="{%- if brief -%}{{- 'Be brief.' -}}{%- endif -%}"),
    "no system": template(before=REFUSED),
}
TOKENIZERS = {
    "bytes": {},
    "start": {"start": True},
    "end": {"end": True},
    "both": {"start": True, "end": True},
    "prepended space": {"space": "prepend"},
    "metaspace": {"space": "metaspace"},
}
PROMPTS: dict[str, Any] = {
    "text": "A:",
    "chat": [{"role": "user", "content": "A:"}],
    "begun": [
        {"role": "user", "content": "A:"},
        {"role": "assistant", "content": "<think>"},
    ],
}
RESPONSES = ("4", "<think>2 + 2</think>4", " 4", "4\n")


def tokenizer(kind: str, chat: str) -> Any:
    how = TOKENIZERS[kind]
    if "space" in how:
        letters = ["\u2581", "\n", *map(chr, range(33, 127))]
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<unk>", PAD, START, END, *letters]
    core = Tokenizer(
        cores.BPE({w: n for n, w in enumerate(words)}, [], unk_token="<unk>")
    )
    core.add_special_tokens(words[:4])
    if how.get("space") == "prepend":
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        core.normalizer = normalizers.Sequence(steps)
        parts = [
            decoders.Replace("\u2581", " "),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
        core.decoder = decoders.Sequence(parts)
    elif "space" in how:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        core.decoder = decoders.Metaspace(prepend_scheme="always")
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=False
        )
        core.decoder = decoders.ByteLevel()
    shape = [START] * how.get("start", False) + ["$A"] + [END] * how.get("end", False)
    if len(shape) > 1:
        core.post_processor = processors.TemplateProcessing(
            single=" ".join(shape), special_tokens=[(START, 2), (END, 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        bos_token=START if "start" in how else None,
        chat_template=TEMPLATES[chat],
        clean_up_tokenization_spaces=False,
    )


@pytest.mark.parametrize(
    ("kind", "chat", "shape"), itertools.product(TOKENIZERS, TEMPLATES, PROMPTS)
)
def test_training_rollouts_and_evals_see_the_same_prompt_and_the_whole_response(
    kind: str, chat: str, shape: str
) -> None:
    tokens, prompt = tokenizer(kind, chat), PROMPTS[shape]
    text.set_template_options(tokens, {"brief": True})
    (evaluated,) = PromptCoder(tokens, "m", 512).encode([prompt])
    (rolled,) = Rollouts._tokenize_prompts(
        SimpleNamespace(_tokenizer=tokens), [prompt]
    )[0]
    assert rolled == evaluated
    assert evaluated.count(tokens.bos_token_id) <= 1
    assert evaluated[-1] != tokens.eos_token_id
    opening = tokens.decode(evaluated)
    assert opening.endswith(
        {"text": "A:", "chat": "[assistant]", "begun": "[assistant]<think>"}[shape]
    )
    assert ("Be brief." in opening) == (chat == "option" and shape != "text")
    for response in RESPONSES:
        row = {
            "prompt": prompt,
            "response": response,
            "chosen": response,
            "rejected": "5",
        }
        one = encode.supervised([row], None, tokens, max_length=None)[0][0]
        pair = encode.preferences([row], None, tokens, max_length=None)[0][0]
        trained = [
            n
            for n, label in zip(one["input_ids"], one["labels"], strict=True)
            if label != -100
        ]
        assert one["input_ids"] == evaluated + trained
        assert (pair["prompt_ids"], pair["chosen_ids"]) == (evaluated, trained)
        assert trained.count(tokens.eos_token_id) == 1
        assert trained[-1] == tokens.eos_token_id
        whole = tokens.decode(one["input_ids"], clean_up_tokenization_spaces=False)
        assert whole == opening + response + END


@pytest.mark.parametrize("shape", ["text", "chat"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_choice_is_scored_without_an_end_token(kind: str, shape: str) -> None:
    tokens = tokenizer(kind, "plain")
    requests = [(PROMPTS[shape], ("4", "5"))]
    for _, _, ids, scored in PromptCoder(tokens, "m", 512).continuations(requests):
        assert [tokens.decode(one).strip() for one in scored] in (
            ["4"],
            ["5"],
            ["4", "5"],
        )
        assert ids[-1] != tokens.eos_token_id


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_that_begins_with_its_start_token_gets_no_second(kind: str) -> None:
    tokens = tokenizer(kind, "plain")
    assert text.prompt_ids(tokens, START + "A:").count(2) == 1


def test_a_template_that_refuses_a_role_is_said_with_its_row() -> None:
    prompt = [{"role": "system", "content": "S"}, *PROMPTS["chat"]]
    row = {"prompt": prompt, "response": "4"}
    with pytest.raises(
        InputError, match=r"row 0: the chat template .* system, user: no system"
    ):
        encode.supervised([row], None, tokenizer("bytes", "no system"), max_length=None)
