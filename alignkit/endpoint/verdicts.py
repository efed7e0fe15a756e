"""One call of a judge: which requests have a verdict, which have to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignkit.endpoint.ledger import Answer
from alignkit.sampling import REFUSED
from alignkit.thinking import behind_thinking
from alignkit.types import Message

Conversation = Sequence[Message]
# (id, what is asked about it: most often one conversation)
Request = tuple[str, Sequence[Conversation]]
Texts = tuple[str, ...]  # one verdict per conversation


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a call of `JudgeClient.ask` brought.

    `texts`: id -> accepted verdicts, behind the judge's thinking. `open`: id -> why
        there is none yet; the next call asks again. `refused`: id -> the words in which
        the server refused it for good. `asked`: answers received now; `reused`: ids answered from the
        ledger. Tokens and dollars are what these requests cost in this call and in
        earlier ones, unreadable verdicts included, by the server's `usage`; dollars are
        None without a price, or when a server did not say what it used.
    """

    texts: dict[str, Texts] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = None

    @property
    def missing(self) -> dict[str, str]:
        """id -> why it has no verdict."""
        return {**self.open, **self.refused}


class Questions:
    """The requests of one call, and which of them are open.

    Args:
        key_of: of a conversation.
        stored: the newest answer under a key, where there is one.
        exact: whether the same request brings the same answer, so that one that was cut
            is not paid for twice.
        accept: whether the texts for an id can be read as a verdict.
        on_done: called with (id, texts) for each accepted verdict.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        key_of: Callable[[Conversation], str],
        stored: Callable[[str], Answer | None],
        exact: bool,
        accept: Callable[[str, Texts], bool],
        on_done: Callable[[str, Texts], None] | None,
    ) -> None:
        self.stored = stored
        self.exact = exact
        self.refused: dict[str, str] = {}
        self.accept = accept
        self.on_done = on_done
        self.texts: dict[str, Texts] = {}
        self.open: dict[str, list[str]] = {}  # id -> keys of its conversations
        self.why: dict[str, str] = {}  # id -> why it is open
        # key -> conversation: equal ones are asked once
        self.conversations: dict[str, Conversation] = {}
        self._users: dict[str, list[str]] = {}  # key -> ids
        for id_, conversations in requests:
            keys = [key_of(conversation) for conversation in conversations]
            self.conversations.update(zip(keys, conversations, strict=True))
            self.open[id_] = keys
            for key in dict.fromkeys(keys):
                self._users.setdefault(key, []).append(id_)
        for id_ in list(self.open):
            self._settle(id_)

    def to_ask(self) -> dict[str, Conversation]:
        """What is missing; for an unreadable verdict all of its conversations, as any
        may be at fault.
        """
        todo = {}
        for keys in self.open.values():
            missing = [key for key in keys if self.stored(key) is None]
            again = missing or [key for key in keys if not self._hopeless(key)]
            todo.update({key: self.conversations[key] for key in again})
        return todo

    def _hopeless(self, key: str) -> bool:
        """Whether asking once more would bring the same cut answer."""
        answer = self.stored(key)
        return self.exact and answer is not None and answer.finish_reason == "length"

    def answered(self, key: str, outstanding: set[str]) -> None:
        """An answer came; `outstanding` are the keys that are still waited for."""
        outstanding.discard(key)
        for id_ in self._open_users(key):
            if outstanding.isdisjoint(self.open[id_]):
                self._settle(id_)

    def failed(self, key: str, why: str) -> None:
        """A conversation got no answer."""
        self.why.update(dict.fromkeys(self._open_users(key), why))

    def _open_users(self, key: str) -> list[str]:
        return [id_ for id_ in self._users[key] if id_ in self.open]

    def _settle(self, id_: str) -> None:
        stored = [self.stored(key) for key in self.open[id_]]
        answers = [answer for answer in stored if answer is not None]
        words = [a.text for a in answers if a.finish_reason == REFUSED]
        if words:
            self.refused[id_] = words[0]
            del self.open[id_]
            return
        if len(answers) < len(stored):
            return
        texts = tuple(behind_thinking(answer.text) or "" for answer in answers)
        # Whether it can be read is judged anew each time, so that a better parser needs
        # no new payment.
        if not self.accept(id_, texts):
            self.why[id_] = _unreadable(answers)
            return
        del self.open[id_]
        self.texts[id_] = texts
        if self.on_done:
            self.on_done(id_, texts)


def _unreadable(answers: Sequence[Answer]) -> str:
    """Why answers are no verdict; the reason stands before a colon."""
    shown = ", ".join(repr(answer.text[-80:]) for answer in answers)
    cut = [answer for answer in answers if answer.finish_reason == "length"]
    if cut:
        limit = f"its limit of {cut[0].max_new_tokens} tokens"
        return f"cut by {limit}; raise it with --judge-tokens: {shown}"
    return f"unreadable verdict: {shown}"
