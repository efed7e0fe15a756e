"""What a run proves of itself: every claim declared once, by the name that proofs.json,
the report and a recipe's `waive` use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# before the first step; during it and after it; once the model is saved
When = Literal["start", "step", "end"]
EVERY = ("sft", "dpo", "grpo", "rloo")
ROLLOUTS = ("grpo", "rloo")


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that is proven, and of the runs of which methods."""

    says: str
    when: When
    methods: tuple[str, ...] = EVERY


CLAIMS: dict[str, Claim] = {
    "rows_alone": Claim(
        "the trainer's log-probs of a row are those of the model on that row alone",
        "start",
    ),
    "rows_apart": Claim(
        "other rows of a batch leave a row's log-probs as they are, to the bit",
        "start",
    ),
    "one_text": Claim(
        "a row is one prompt in training, rollouts and evals, and all of its response"
        " is trained on",
        "start",
    ),
    "policy_sampler": Claim(
        "rollouts are drawn from the policy as the recipe says, by nothing else",
        "start",
        ROLLOUTS,
    ),
    "trial_save": Claim(
        "configuration, tokenizer and tensors come back from a trial save as they were",
        "start",
    ),
    "settings": Claim("what the recipe states is in force", "start"),
    "sync": Claim("vLLM generates with the weights of the trainer", "step", ROLLOUTS),
    "best_model": Claim(
        "best/ computes what the model computed when it was saved there", "end"
    ),
    "saved_model": Claim(
        "the saved model computes what the trained one computed", "end"
    ),
    "saved_adapter": Claim(
        "the saved adapter on its base computes what the trained model computed", "end"
    ),
    "saved_tokenizer": Claim(
        "the saved tokenizer and generation settings are those of the run", "end"
    ),
}


def claims(method: str) -> dict[str, Claim]:
    """Those of a method's runs, in the order in which they are proven."""
    return {name: claim for name, claim in CLAIMS.items() if method in claim.methods}
