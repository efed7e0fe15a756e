"""A teacher's answer in the form that its prompt begins: what is changed is said."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignkit.grading.extract import extract_answer
from alignkit.sampling import PromptText, stop_end
from alignkit.thinking import CLOSED, OPENED, opens_thinking
from alignkit.types import Prompt

ANSWER, ANSWERED = "<answer>", "</answer>"
_BETWEEN = re.compile(rf"{re.escape(CLOSED)}(\s*){re.escape(ANSWER)}")

# What a change is called in a row, and what it says.
CHANGES = {
    "continued": "went on with the thought that the prompt had begun",
    "merged": "two thoughts became one",
    "spacing": "the prompt's own spacing between </think> and <answer>",
    "moved": "words between the thought and <answer> went into the thought",
    "boxed": "the answer was taken from its box",
    "cut": "words behind the end were cut",
}


def doubled(prompt: PromptText, response: str) -> list[str]:
    """The tags of thinking and answering that stand twice where one is meant."""
    reply = response.rpartition(CLOSED)[2]
    counts = {
        OPENED: response.count(OPENED) + opens_thinking(prompt),
        CLOSED: response.count(CLOSED),
        ANSWER: reply.count(ANSWER),
        ANSWERED: reply.count(ANSWERED),
    }
    return [tag for tag, count in counts.items() if count > 1]


@dataclass(frozen=True, slots=True)
class Form:
    """What a prompt asks of an answer.

    `opens`: the prompt ends within a thought. `between`: the spacing of `</think>` and
        `<answer>`; None where it asks for no tags.
    """

    opens: bool
    between: str | None
    stop: tuple[str, ...]

    @classmethod
    def of(cls, prompt: Prompt | None, rendered: PromptText) -> Form:
        """The form of a template, or of a row's own prompt where there is none."""
        text = rendered if prompt is None else prompt.template
        if not isinstance(text, str):
            text = "\n".join(message["content"] for message in text)
        opens = opens_thinking(rendered)
        stop = prompt.stop if prompt else ()
        shown = _BETWEEN.search(text)
        between = shown[1] if shown else None
        if opens and between is None and (ANSWER in text or ANSWERED in stop):
            between = " "
        if between is not None and not stop:
            stop = (ANSWERED,)
        return cls(opens, between, stop)

    def holds(self, text: str) -> bool:
        """Whether an answer has it."""
        if self.between is None:
            return True
        return CLOSED + self.between + ANSWER in text and ANSWERED in text

    def applied(self, text: str) -> tuple[str, list[str]]:
        """The answer in this form, and what was changed, as `CHANGES` calls it."""
        changes: list[str] = []
        thought, closed, reply = text.rpartition(CLOSED)
        if not closed:
            return text, changes
        begun = thought.lstrip().startswith(OPENED)
        inside = thought.lstrip().removeprefix(OPENED) if begun else thought
        if (begun or self.opens) and (OPENED in inside or CLOSED in inside):
            parts = re.split(f"{OPENED}|{CLOSED}", inside)
            inside = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
            changes.append("merged")
        if begun and self.opens:
            changes.insert(0, "continued")
        elif begun:
            inside = OPENED + inside
        if self.between is not None:
            inside, reply = self._tagged(inside, reply, changes)
        end = stop_end(reply, self.stop) if self.stop else 0
        if end and reply[end:].strip():
            changes.append("cut")
        return inside + CLOSED + (reply[:end] if end else reply), changes

    def _tagged(self, thought: str, reply: str, changes: list[str]) -> tuple[str, str]:
        """Thought and reply with the answer in its tags right behind the thought."""
        words, tag, answer = reply.partition(ANSWER)
        if not tag:
            boxed = extract_answer(reply, "boxed")
            if boxed is None:
                return thought, reply
            words, answer = reply, f" {boxed} {ANSWERED}"
            changes.append("boxed")
        elif words.strip():
            changes.append("moved")
        elif words != self.between:
            changes.append("spacing")
        if words.strip():
            thought = f"{thought.rstrip()}\n\n{words.strip()}\n"
        return thought, f"{self.between}{ANSWER}{answer}"
