"""The tiny model and the eight rows that every proof in the laboratory is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

GROUP = 4
PROMPTS = ("1+2=?", "User: 8+2+1=?\nAssistant: ")
# response tokens; one of a single token in each group
LENGTHS = (1, 3, 6, 2, 4, 9, 1, 5)
REWARDS = (1.0, 0.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0)  # the second group has no variance
ADVANTAGES = (0.9, -1.3, 0.9, -0.4, 0.0, 0.0, 0.0, 0.0)
# this response has no EOS: `mask_truncated_completions` leaves it without a token to
# train on
CUT_OFF = 3


def model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Qwen2ForCausalLM:
    """Two layers, hidden size 16, float64, with weights large enough for gradients of
    order one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.3,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return Qwen2ForCausalLM(config).double()


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: prompt, response, and what a policy loss is given about it."""

    prompt: list[int]
    response: list[int]
    reward: float
    advantage: float
    trained: bool  # False: masked out, as it was cut off


def rows(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """The eight rows: two prompts with four responses each, all different, ended by EOS
    but for one.
    """
    generator = torch.Generator().manual_seed(1)
    table = []
    for index, length in enumerate(LENGTHS):
        ids = torch.randint(4, len(tokenizer), (length,), generator=generator).tolist()
        if index != CUT_OFF:
            ids[-1] = tokenizer.eos_token_id
        if length > 1:
            ids[0] = 4 + index
        prompt = tokenizer(PROMPTS[index // GROUP]).input_ids
        trained = index != CUT_OFF
        table.append(Row(prompt, ids, REWARDS[index], ADVANTAGES[index], trained))
    return table


def drift(ids: Tensor, phase: float) -> Tensor:
    """(…, T) token ids to numbers in (-0.5, 0.5) by token and place: how far another
    policy's log-probs lie off.
    """
    places = torch.arange(ids.shape[-1], device=ids.device, dtype=torch.float64)
    return 0.5 * torch.sin(1.7 * ids.double() + places + phase)


def pairs(table: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Eight preference pairs, four of each prompt, in no circle: in one the gradients
    of a loss that is linear in the margin would cancel.
    """
    for start in range(0, len(table), GROUP):
        for chosen, rejected in ((0, 1), (0, 2), (1, 3), (2, 3)):
            yield table[start + chosen], table[start + rejected]
