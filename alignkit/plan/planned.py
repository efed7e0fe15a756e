"""What a plan holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alignkit import plugins
from alignkit.recipe.schema import Stage


@dataclass(slots=True)
class Plan:
    """What was found out about one trained stage, without training."""

    name: str
    config: Stage
    plugins: list[plugins.Plugin] = field(default_factory=list)
    arithmetic: dict[str, Any] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)  # who is asked, with which key
    rows: dict[str, Any] = field(default_factory=dict)
    prompt: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)  # only where asked for
    missing: list[str] = field(default_factory=list)  # exit 3
    wrong: list[str] = field(default_factory=list)  # exit 2
    warnings: list[str] = field(default_factory=list)  # `run` says them too

    def record(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "name": self.name,
            "method": self.config.method,
            "plugins": [
                {"kind": p.kind, "name": p.name, "file": str(p.file)}
                for p in self.plugins
            ],
            "arithmetic": self.arithmetic,
            "hosts": self.hosts,
            "rows": self.rows,
            "prompt": self.prompt,
            "estimate": self.estimate,
            "missing": self.missing,
            "wrong": self.wrong,
            "warnings": self.warnings,
        }
