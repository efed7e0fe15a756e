"""Whether the Hub can be reached: asked once, before huggingface_hub retries every file
for minutes.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from alignkit.errors import MissingError

TIMEOUT = 2.0  # seconds


def reachable() -> bool:
    """Whether a connection to the Hub (or the mirror in HF_ENDPOINT) opens."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxied = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlsplit(proxied) if proxied else endpoint
    try:
        with socket.create_connection(
            (target.hostname, target.port or 443), timeout=TIMEOUT
        ):
            return True
    except OSError:
        return False


def settle() -> None:
    """Go offline for this process and its children where the Hub cannot be reached;
    what is cached still works.

    Call it before huggingface_hub is imported.
    """
    if "HF_HUB_OFFLINE" not in os.environ and not reachable():
        os.environ["HF_HUB_OFFLINE"] = "1"


def require_model(name: str, revision: str | None = None) -> None:
    """Say at once, before anything heavy is imported, that a model is neither a folder,
    nor cached, nor reachable.

    Raises:
        MissingError: with what to do.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    local = Path(name).expanduser().exists() or name.startswith(
        ("runs/", ".", "/", "~")
    )
    if local or not constants.HF_HUB_OFFLINE:
        return
    if not isinstance(
        try_to_load_from_cache(name, "config.json", revision=revision or "main"), str
    ):
        raise MissingError(
            f"model '{name}' is not in the Hub cache, and the Hub cannot be reached"
            " from here; pass a folder, or where there is a network: hf download"
            f" {name}"
        )
