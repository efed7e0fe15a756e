"""What is asked of an eval, and the eval ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit.evaluate.store import Key
from alignkit.run.rows import Row
from alignkit.sampling import OPTIONS, Sampling
from alignkit.thinking import Reasoning
from alignkit.types import Prompt, Sample

if TYPE_CHECKING:
    from alignkit.plugins import Plugin


# What `--set` and a recipe's `sampling:` may change; the others are set by the harness.
SAMPLING = tuple(OPTIONS)


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """One eval and how it is run. What is left out is the eval's published default.

    `data` changes keys of the eval's data spec (`split`, `path`, …), `sampling` those
    of its sampling; `limit` takes that many samples, spread over the data and the same
    ones every time; `samples` completions per question. `prompt` is a prompt's name or
    `{file: PATH}`, `reasoning` whether the thinking is scored too; `shots` solved
    questions are shown before each, of the file `shots_from` or of the train split.
    """

    plugin: Plugin
    options: Mapping[str, Any]
    data: Mapping[str, Any]
    prompt: str | Mapping[str, Any] | None = None
    sampling: Mapping[str, Any]
    reasoning: Reasoning | None = None
    limit: int | None = None
    samples: int = 1
    seed: int = 0
    shots: int | None = None
    shots_from: str | None = None
    # the reward that grades in the place of the eval's own score, and its options
    reward: tuple[Plugin, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, plugin: Plugin, **given: Any) -> EvalRequest:
        """A request with defaults for the maps."""
        return cls(
            plugin=plugin, **{"options": {}, "data": {}, "sampling": {}, **given}
        )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An eval ready to run."""

    request: EvalRequest
    samples: list[Sample]
    sampling: Sampling
    prompt: Prompt | None
    data: dict[str, Any]
    # of what is asked, without the examples
    sha256: str
    shots: dict[str, Any] | None
    # responses by (sample id, number), in the place of an engine
    stored: dict[Key, Row] | None
    # the file of stored responses, and how many of its rows fit
    used: dict[str, Any] | None = None

    @property
    def likelihood(self) -> bool:
        """Whether choices are compared by log-likelihood in the place of generation."""
        return bool(self.samples and self.samples[0].choices)
