"""Grading by what an answer means: find the final answer, read both, compare."""
