"""What `align eval` prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignkit.cli.common import counts
from alignkit.terminal import say

# refusals that no repetition changes
_LASTING = re.compile(r" answered 4(?!08|09|25|29)\d\d$")

if TYPE_CHECKING:
    from rich.console import Console


def show(summaries: Sequence[Mapping[str, Any]], out: Console) -> None:
    """One row per eval and model."""
    from rich.table import Table

    heads = ("eval", "model", "metric", "value", "95 % interval", "n", "statuses")
    table = Table(*heads, box=None, pad_edge=False)
    for s in summaries:
        value = interval = "-"
        if s["value"] is not None:
            value = f"{s['value']:.4f}"
        if s["low"] is not None:
            interval = f"{s['low']:.4f} to {s['high']:.4f}"
        names = (s["eval"], s["provenance"]["model"], s["metric"])
        table.add_row(*names, value, interval, str(s["n"]), counts(s["status"]))
    out.print(table)
    for s in summaries:
        for name, count in s["tally"].items():
            say(out, f"{s['eval']}: {name}: {count}")
        passes = {k: v for k, v in s["metrics"].items() if k.startswith("pass@")}
        passes |= s.get("reported", {})
        said = [f"{name} {value:.4f}" for name, value in passes.items()]
        for name, (low, high) in s.get("intervals", {}).items():
            said.append(f"{name} {s['metrics'][name]:.4f} ({low:.4f} to {high:.4f})")
        if said:
            values = ", ".join(said)
            say(out, f"{s['eval']}: {values}")
        for name, part in s.get("breakdown", {}).items():
            if isinstance(part, dict) and part.keys() == {"n", "value", "low", "high"}:
                value = "{value:.4f} (95 % {low:.4f} to {high:.4f}, n {n})"
                say(out, f"{s['eval']}: {name} {value.format(**part)}")
        if "judging" in s:
            spent = s["judging"]["dollars"]
            cost = "cost unknown" if spent is None else f"${spent:.4f}"
            judged = f"{s['metrics']['scored']} of {s['completions']} judged"
            say(out, f"{s['eval']}: {judged}, {cost}")
        say(out, f"{s['eval']}: {s['folder']}")


def left_open(left: int, summaries: Sequence[Mapping[str, Any]]) -> str:
    """The commonest reason, and what helps."""
    reasons: Counter[str] = Counter()
    for summary in summaries:
        reasons.update(summary.get("judging", {}).get("open", {}))
    said = f"{left} judgements are left open"
    if not reasons:
        return f"{said}; run the same command again to judge them"
    reason, count = reasons.most_common(1)[0]
    said += f", {count} of them: {reason}"
    if reason.startswith("cut by"):
        return said
    if _LASTING.search(reason):
        return f"{said}; it will say so again: another judge or server may help"
    if reason.startswith("unreadable verdict"):
        return f"{said}; another judge or prompt may help (samples.jsonl has the texts)"
    return f"{said}; run the same command again to judge them"
