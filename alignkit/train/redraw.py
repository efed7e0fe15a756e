"""Groups whose outcomes are all equal teach nothing: they are drawn again, as in the
dynamic sampling of DAPO (arXiv:2503.14476), but from the same questions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignkit.run import deadlines
from alignkit.train.stopped import StoppedRollouts

if TYPE_CHECKING:
    from alignkit.grading.bound import Graded


class RedrawnRollouts(StoppedRollouts):
    """Mixed in before TRL's GRPOTrainer or RLOOTrainer.

    Takes one more keyword, `redraws`: how often the groups of a training batch that are
    equal in the reward that decides are drawn again. Groups stay whole; what is drawn
    last is kept, also where it is equal still.
    """

    def __init__(self, *args: Any, redraws: int = 0, **kwargs: Any) -> None:
        self.redraws = redraws
        super().__init__(*args, **kwargs)
        assert not redraws or self.accelerator.num_processes == 1, "see the rules"

    def _generate_single_turn(
        self, prompt_ids: Sequence[Sequence[int]], *rest: Any, **more: Any
    ) -> Any:
        draw = super()._generate_single_turn
        generated = draw(prompt_ids, *rest, **more)
        if not (self.redraws and self.model.training):
            return generated
        # GRPO returns the log-probs beside the ids (None without vLLM), RLOO the ids
        alone = not isinstance(generated, tuple)
        columns = [generated] if alone else list(generated)
        started, tokens = time.perf_counter(), 0
        graded = self._outcomes(range(len(prompt_ids)), columns[0])
        again: set[int] = set()
        for _ in range(self.redraws):
            rows = self._equal(graded)
            if not rows:
                break
            deadlines.again()
            again.update(rows)
            tokens += sum(len(columns[0][row]) for row in rows)
            self.state.num_input_tokens_seen += sum(
                len(prompt_ids[row]) + len(columns[0][row]) for row in rows
            )
            drawn = draw([prompt_ids[row] for row in rows], *rest, **more)
            for column, new in zip(columns, [drawn] if alone else drawn, strict=True):
                for row, value in zip(rows, new or (), strict=new is not None):
                    column[row] = value
            new_grades = self._outcomes(rows, [columns[0][row] for row in rows])
            for row, grade in zip(rows, new_grades, strict=True):
                graded[row] = grade
        self._outcome = graded
        metrics = self._metrics["train"]
        metrics["resampled_groups"].append(len(again) / len(graded))
        metrics["resampled_tokens"].append(float(tokens))
        metrics["seconds/resampling"].append(time.perf_counter() - started)
        return columns[0] if alone else tuple(columns)

    def _outcomes(
        self, rows: Sequence[int], completion_ids: Sequence[Sequence[int]]
    ) -> list[Graded]:
        """What the reward that decides says of responses to these rows of the batch."""
        board = self.board
        assert board is not None, "what is equal is told by a reward"
        texts = self.processing_class.batch_decode(
            completion_ids, skip_special_tokens=True
        )
        asked = [self._asked[row] for row in rows]
        known = [board.answers["step"].fields(given["row"]) for given in asked]
        with deadlines.phase("grading", more=board.seconds(len(texts))):
            return board.grader.score(
                next(each for each in board.rewards if each.name == board.verdict),
                texts,
                [row["truth"] for row in known],
                [given["prompt"] for given in asked],
                [row["metadata"] for row in known],
                [len(ids) for ids in completion_ids],
            )

    def _equal(self, graded: Sequence[Graded]) -> list[int]:
        """The rows of the groups in which all have the same reward."""
        size = self.num_generations
        return [
            row
            for start in range(0, len(graded), size)
            if len({grade.score.reward for grade in graded[start : start + size]}) == 1
            for row in range(start, start + size)
        ]
