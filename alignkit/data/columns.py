"""The names of the column that holds a row's question."""

from __future__ import annotations

QUESTION_COLUMNS = ("question", "instruction", "problem", "prompts_final")
# `prompt` comes last: beside another of them it holds the question as it was put to a
# model, in a template.
QUESTION_OR_PROMPT = (*QUESTION_COLUMNS, "prompt")
