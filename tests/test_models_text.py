"""One prompt is one text in training, rollouts and evals, whatever the tokenizer and
the template.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as cores
from transformers import PreTrainedTokenizerFast

from alignkit.data import encode
from alignkit.engines.prompts import PromptCoder
from alignkit.errors import InputError
from alignkit.models import text
from alignkit.types import Prompt

PAD, END, BEGIN = "<pad>", "<end>", "<begin>"
LOOP = "{% for m in messages %}BODY{% endfor %}"
OPEN = "{% if add_generation_prompt %}[assistant]{% endif %}"
SAID = "[{{ m.role }}]{{ m.content }}<end>"
TEMPLATES = {
    "plain": LOOP.replace("BODY", SAID) + OPEN,
    "writes the start": "{{ bos_token }}" + LOOP.replace("BODY", SAID) + OPEN,
    "trims": LOOP.replace("BODY", "[{{ m.role }}]{{ m.content | trim }}<end>") + OPEN,
    "leaves out thoughts": LOOP.replace(
        "BODY", "[{{ m.role }}]{{ m.content.split('</think>')[-1] }}<end>"
    )
    + OPEN,
    "breaks the line": LOOP.replace("BODY", "[{{ m.role }}]\n{{ m.content }}<end>\n")
    + "{% if add_generation_prompt %}[assistant]\n{% endif %}",
    "takes options": "{% if loud is defined %}LOUD{% endif %}"
    + LOOP.replace("BODY", SAID)
    + OPEN,
}


def byte_level(start: bool = False, end: bool = False) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([PAD, END, BEGIN, *alphabet])}
    core = Tokenizer(cores.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return _finished(core, start, end)


def metaspace(start: bool = True, end: bool = False) -> Any:
    """Writes a space before every text, as Llama 2's."""
    characters = [*sorted({chr(n) for n in range(33, 127)}), "▁", "\n"]
    vocabulary = {token: n for n, token in enumerate([PAD, END, BEGIN, *characters])}
    core = Tokenizer(cores.BPE(vocabulary, [], byte_fallback=False))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finished(core, start, end)


def _finished(core: Any, start: bool, end: bool) -> Any:
    core.add_special_tokens([PAD, END, BEGIN])
    ids = [(token, core.token_to_id(token)) for token in (BEGIN, END)]
    shape = f"{BEGIN + ' ' if start else ''}$A{' ' + END if end else ''}"
    core.post_processor = processors.TemplateProcessing(
        single=shape, special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, bos_token=BEGIN
    )


TOKENIZERS = {
    "bytes": byte_level(),
    "adds a start": byte_level(start=True),
    "adds an end": byte_level(end=True),
    "adds both": byte_level(start=True, end=True),
    "adds a space": metaspace(),
    "adds a space and an end": metaspace(end=True),
}
PROMPTS: dict[str, Any] = {
    "text": "Q: {question}\nA:",
    "chat": [{"role": "user", "content": "{question}"}],
    "system": [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "{question}"},
    ],
    "begun": [
        {"role": "user", "content": "{question}"},
        {"role": "assistant", "content": "<think>"},
    ],
}
ROW = {
    "question": "1+1?",
    "response": "so</think> 2",
    "chosen": "so</think> 2",
    "rejected": " no</think>3",
}
GRID = [
    (tokenizer, template, prompt)
    for tokenizer, template, prompt in itertools.product(TOKENIZERS, TEMPLATES, PROMPTS)
    if prompt != "text" or template == "plain"
]


@pytest.fixture(params=GRID, ids="; ".join)
def case(request):
    tokenizer, template, prompt = request.param
    made = TOKENIZERS[tokenizer]
    made.chat_template = TEMPLATES[template]
    text.set_template_options(made, {"loud": True} if "options" in template else None)
    return made, Prompt("p", PROMPTS[prompt])


def encoded(tokenizer: Any, prompt: Prompt) -> dict[str, Any]:
    """The prompt's tokens by who sees them, and the responses' by who trains on them."""
    rows = [ROW]
    sft = encode.supervised(rows, prompt, tokenizer, max_length=None)[0][0]
    dpo = encode.preferences(rows, prompt, tokenizer, max_length=None)[0][0]
    rolled = encode.problems(rows, prompt, tokenizer)[0][0]["prompt"]
    start = next(n for n, label in enumerate(sft["labels"]) if label != -100)
    return {
        "prompts": {
            "sft": sft["input_ids"][:start],
            "dpo": dpo["prompt_ids"],
            "rollout": text.prompt_ids(tokenizer, rolled),
            "eval": PromptCoder(tokenizer, "m", 10**6).encode([rolled])[0],
        },
        "responses": {
            "response": sft["input_ids"][start:],
            "chosen": dpo["chosen_ids"],
            "rejected": dpo["rejected_ids"],
        },
    }


def test_a_prompt_is_the_same_tokens_everywhere(case):
    prompts = encoded(*case)["prompts"]
    assert len({tuple(ids) for ids in prompts.values()}) == 1, prompts


def test_a_prompt_begins_once_and_does_not_end(case):
    tokenizer, prompt = case
    ids = encoded(tokenizer, prompt)["prompts"]["eval"]
    assert ids[:2] != [tokenizer.bos_token_id] * 2
    assert ids[-1] != tokenizer.eos_token_id


def test_a_response_is_trained_on_whole_and_ends_once(case):
    tokenizer, prompt = case
    for side, ids in encoded(tokenizer, prompt)["responses"].items():
        assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == 1
        shown = tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)
        assert "".join(ROW[side].split()) in "".join(shown.split())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_prompt_and_response_are_the_text_that_they_were(name):
    tokenizer = TOKENIZERS[name]
    before, after = text.pair_ids(tokenizer, "A: <think>", "4</think>")
    ids = [n for n in (*before, *after) if n not in (1, 2)]
    assert tokenizer.decode(ids) == "A: <think>4</think>"


def test_what_a_template_refuses_is_told_with_the_row():
    tokenizer = byte_level()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}" + TEMPLATES["plain"]
    )
    with pytest.raises(InputError, match=r"row 0.*system, user.*no system"):
        encode.supervised(
            [ROW], Prompt("p", PROMPTS["system"]), tokenizer, max_length=9
        )


def test_without_a_template_messages_are_refused():
    with pytest.raises(InputError, match="no chat template"):
        text.prompt_ids(byte_level(), PROMPTS["chat"])


NESTED = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"
)
FAULTY = {
    "endless": (NESTED, "not done after"),
    "giant": ("{{ 'x' * 2000000 }}", "makes 2,000,000 characters"),
    "divides": ("{{ 1 / 0 }}", "division by zero"),
    "calls": ("{{ messages() }}", "not callable"),
    "lacks": ("{{ messages[9].role }}", "no element 9"),
    "reaches": ("{{ messages.__class__.__mro__ }}", "unsafe"),
    "refuses": (
        "{{ raise_exception('System role not supported') }}",
        "System role not",
    ),
    "broken": ("{% for %}", "Expected an expression"),
    "recurses": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_template_is_one_line_that_names_model_and_row(fault, monkeypatch):
    monkeypatch.setattr(text, "RENDERING", 0.2)
    template, words = FAULTY[fault]
    tokenizer = byte_level()
    tokenizer.chat_template, tokenizer.name_or_path = template, "a/model"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with pytest.raises(InputError) as refused:
        text.each([{}], lambda _: text.render_chat(tokenizer, chat), "training data")
    said = str(refused.value)
    assert "training data, row 0: the chat template of a/model" in said
    assert words in said and "\n" not in said
