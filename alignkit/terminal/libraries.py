"""What libraries print by themselves, bound in one place."""

from __future__ import annotations


def no_bars() -> None:
    """No progress bars of transformers and datasets: our own progress is shown."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
