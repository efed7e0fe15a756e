"""From TRL's generation batch to rows of rollouts.

Shapes: B rows of a generation batch on this process, T tokens of its longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignkit.models import text
from alignkit.train.synced import SyncedRollouts

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.grading.bound import Graded
    from alignkit.run.rows import Row
    from alignkit.train.rewards import RewardBoard


class Rollouts(SyncedRollouts):
    """Mixed in before TRL's GRPOTrainer or RLOOTrainer.

    Takes one more keyword, `board`: it begins to grade as soon as a batch is generated,
    while TRL computes log-probs, and writes the rollouts once there are advantages.
    """

    _asked: Sequence[Mapping[str, Any]] = ()
    # of the newest batch, what the reward that decides said before it was kept
    _outcome: Sequence[Graded] | None = None
    # TRL's log-prob passes over the batch that is being scored: (B, T) log-probs, and
    # of the policy's own pass entropies
    _scored: list[tuple[Tensor, Tensor | None]] | None = None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """All that the TRL trainer of a subclass brings in."""

    def __init__(
        self, *args: Any, board: RewardBoard | None = None, **kwargs: Any
    ) -> None:
        self.board = board
        super().__init__(*args, **kwargs)

    def _tokenize_prompts(self, prompts: Sequence[Any]) -> Any:
        """TRL's: token ids, images, and further fields; prompts become the tokens that
        they are everywhere else.
        """
        return (
            [text.prompt_ids(self._tokenizer, prompt) for prompt in prompts],
            None,
            {},
        )

    def _begin(
        self, completions: Sequence[Any], ids: Sequence[Sequence[int]], seconds: float
    ) -> list[Row]:
        """Start the grading; the rollouts, none without a board."""
        if self.board is None:
            return []
        known: list[Row] = [
            {**_said(said), "tokens": len(tokens), "seconds": seconds}
            for said, tokens in zip(completions, ids, strict=True)
        ]
        step = self.state.global_step
        if self.model.training:
            outcome, self._outcome = self._outcome, None
            return self.board.begin(self._asked, known, step + 1, "step", outcome)
        return self.board.begin(self._asked, known, step, "validation")

    def _get_per_token_logps_and_entropies(
        self, model: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if self._scored is None:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)  # type: ignore[misc]
        own = self.board is not None and not self._scored and model is self.model
        result = super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
            model, *args, **{**kwargs, "compute_entropy": own}
        )
        self._scored.append(result[:2])
        return result

    def _finish(self, board: RewardBoard, output: Mapping[str, Any]) -> None:
        """Write the rollouts of this process. Groups are adjacent over all processes."""
        advantages = output["advantages"].tolist()
        own = self._own(len(advantages))
        size = self._group_size()
        old, entropies = self._old_logps(output), None
        if old is None:
            old = output.get("sampling_per_token_logps")  # GRPO with vLLM
        elif self._scored:
            entropies = self._scored[0][1]
        mask = own_tokens(output)
        columns = zip(
            range(own.start, own.stop),
            advantages,
            _means(old, mask),
            _means(entropies, mask),
            strict=True,
        )
        rows: list[Row] = [
            {
                "group": number // size,
                "sample": number % size,
                "advantage": advantage,
                "mean_logprob": logp,
                "mean_entropy": entropy,
            }
            for number, advantage, logp, entropy in columns
        ]
        board.finish(rows, len(rows) * self.accelerator.num_processes // size)

    def _old_logps(self, output: Mapping[str, Any]) -> Tensor | None:
        """(B, T) log-probs under the policy that sampled; GRPO needs none on-policy."""
        return output.get("old_per_token_logps")

    def _own(self, count: int) -> slice:
        return slice(
            self.accelerator.process_index * count,
            (self.accelerator.process_index + 1) * count,
        )

    def _group_size(self) -> int:
        return (
            self.num_generations if self.model.training else self.num_generations_eval
        )


def _said(completion: Any) -> Row:
    """A completion of TRL, a text or messages, as fields of a row."""
    if isinstance(completion, str):
        return {"response": completion}
    turns = None if len(completion) == 1 else completion
    return {"response": completion[-1]["content"], "turns": turns}


def _means(values: Tensor | None, mask: Tensor) -> list[float] | list[None]:
    """(B, T) to the mean over each row's tokens; NaN where it has none (masked out)."""
    if values is None:
        return [None] * len(mask)
    total = values.float().masked_fill(~mask, 0).sum(dim=1)
    return (total / mask.sum(dim=1)).tolist()


def own_tokens(inputs: Mapping[str, Any]) -> Tensor:
    """(B, T) bool: completion tokens of the model, without those of a tool."""
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()
