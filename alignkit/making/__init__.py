"""Making data: split without leakage, distil from a teacher, filter, measure lengths."""

from alignkit.making.distill import Distillation
from alignkit.making.filter import Filter
from alignkit.making.lengths import Lengths, histogram, measure
from alignkit.making.split import QUESTION_COLUMNS, Split, normalise, question_of, split

__all__ = [
    "QUESTION_COLUMNS",
    "Distillation",
    "Filter",
    "Lengths",
    "Split",
    "histogram",
    "measure",
    "normalise",
    "question_of",
    "split",
]
