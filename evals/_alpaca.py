"""Hand judged pairs to the alpaca-eval library: its metrics, its leaderboard and
annotation files.
"""

import contextlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit import MissingError

from ._alpaca_orders import flips
from ._reply import reply_text

# the reference model that the length-controlled regression was fitted against
BASELINE = "gpt4_1106_preview"
INSTRUCTIONS = 805


def needs_library() -> None:
    """Raises MissingError where the package is not installed."""
    if importlib.util.find_spec("alpaca_eval") is None:
        raise MissingError(
            "eval 'alpaca' needs the package 'alpaca-eval': pip install"
            " 'alignkit[alpaca]'"
        )


def alpaca_leaderboard(
    results: Sequence[Mapping[str, Any]], folder: Path
) -> dict[str, Any]:
    """Metrics (percentages) by `alpaca_eval.evaluate`, which writes leaderboard.csv and
    annotations.json to the folder; beside them model_outputs.json and
    reference_outputs.json, as the library reads them.

    The rows' rewards are 0, 0.5 or 1; their metadata have `question`, `reference`,
    `generator`, and `position`, the instruction's place among the 805. The library
    judges nothing: it is given these verdicts in the place of an annotator, so neither
    its client nor its cache is used. The length-controlled win rate is added where its
    inputs can be had; else `length_controlled` says why not.
    """
    if not results:
        return {}
    with left_as_found():
        return {**_leaderboard(results, folder), **flips(results)}


@contextlib.contextmanager
def left_as_found() -> Iterator[None]:
    """The library's import reads a .env file into the environment and turns on logging
    for the whole process.
    """
    root, environment = logging.getLogger(), dict(os.environ)
    handlers, level = list(root.handlers), root.level
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the library's own imports
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers
        root.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)


def _leaderboard(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    import alpaca_eval
    import pandas as pd
    from alpaca_eval import metrics

    # The library looks up an instruction's difficulty by the row's index: it must be
    # the place in the whole benchmark.
    table = pd.DataFrame.from_records(_annotations(results, folder)).set_index(
        "position"
    )
    table.index.name = None

    class Judged:
        def __init__(self, annotators_config: Any) -> None:
            pass

        def annotate_head2head(self, outputs_1: Any, outputs_2: Any) -> Any:
            return table

    outputs = {"model": _outputs(table, "2"), "reference": _outputs(table, "1")}
    for name, rows in outputs.items():
        path = folder / f"{name}_outputs.json"
        rows.to_json(path, orient="records", indent=2)
    why_not = _why_not_length_controlled(
        table, {row["metadata"].get("of") for row in results}
    )
    board, _ = alpaca_eval.evaluate(
        model_outputs=outputs["model"],
        reference_outputs=outputs["reference"],
        annotators_config={},
        name=str(table["generator_2"].iloc[0]),
        output_path=folder,
        precomputed_leaderboard=None,
        is_cache_leaderboard=False,
        is_return_instead_of_print=True,
        fn_metric=(
            metrics.get_winrate if why_not else metrics.get_length_controlled_winrate
        ),
        # else it writes into site-packages
        metric_kwargs={} if why_not else {"save_weights_dir": None},
        sort_by="win_rate",
        Annotator=Judged,
    )
    found = {k: v.item() if hasattr(v, "item") else v for k, v in board.iloc[0].items()}
    # NaN, the error of a single one, is no JSON
    found = {k: None if v != v else v for k, v in found.items()}
    return {**found, "length_controlled": why_not or "computed"}


def _annotations(
    results: Sequence[Mapping[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """The library's format: preference 1 is a win of output_1 (the reference), 2 of
    output_2, 1.5 a draw.
    """
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    judge = settings["scoring"]["judge"]
    return [
        {
            "instruction": row["metadata"]["question"],
            "output_1": row["metadata"]["reference"],
            "generator_1": row["metadata"].get("generator", "reference"),
            "output_2": reply_text(row["response"]),
            "generator_2": settings["settings"]["model"],
            "annotator": f"{judge['name']}:{judge['model']}",
            "preference": 1.0 + row["reward"],
            "dataset": row["metadata"].get("dataset", ""),
            "position": row["metadata"]["position"],
        }
        for row in results
    ]


def _outputs(table: Any, side: str) -> Any:
    columns = {f"output_{side}": "output", f"generator_{side}": "generator"}
    return table[["instruction", *columns]].rename(columns=columns)


def _why_not_length_controlled(table: Any, sizes: set[Any]) -> str:
    """Empty when the length-controlled win rate can be computed."""
    generators = set(table["generator_1"])
    if generators != {BASELINE}:
        return (
            f"absent: it is defined against the reference {BASELINE}, here it is"
            f" {', '.join(sorted(generators))}"
        )
    # the regression knows each instruction by its place among them
    if sizes != {INSTRUCTIONS}:
        return f"absent: these are not the {INSTRUCTIONS} instructions of the benchmark"
    import httpx
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download("tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset")
    except (OSError, httpx.HTTPError) as error:
        reason = str(error).splitlines()[0]
        get = "hf download tatsu-lab/alpaca_eval df_gamed.csv --repo-type dataset"
        return (
            f"absent: its table df_gamed.csv cannot be had ({reason}); `{get}` fetches"
            " it, then run this again"
        )
    return ""
