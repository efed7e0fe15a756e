"""Who may be asked, and with which key.

A request leaves this machine only for a host, and with a key only for a pair of host and
variable, that somebody named who may: an installed judge plugin, the command line, or
the user's own `~/.config/alignkit/hosts.toml`. A recipe is data: what it alone names is
asked nothing. Every connection demands this when it is made, so no plugin has to.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from alignkit.benchmarks import Judge
from alignkit.errors import InputError

# A place (host:port) and the variable whose key may go there; None sends none.
Pair = tuple[str, str | None]
FILE = "~/.config/alignkit/hosts.toml"
_ALLOWED = "ALIGN_ALLOWED"  # what children inherit
_PORTS = {"http": 80, "https": 443}
_declared: set[Pair] = set()


def declare(judge: Judge) -> None:
    """Allow what an installed judge plugin names."""
    if judge.base_url:
        _declared.add((place(judge.base_url), judge.key))


@contextmanager
def allowing(pairs: Iterable[Pair]) -> Iterator[None]:
    """Allow what the user named, here and in processes started from here."""
    before = os.environ.get(_ALLOWED)
    known = json.loads(before or "[]")
    os.environ[_ALLOWED] = json.dumps([*known, *pairs])
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ALLOWED]
        else:
            os.environ[_ALLOWED] = before


def parsed(text: str, source: str) -> list[Pair]:
    """The pairs of `HOST[:PORT][=VARIABLE]`; without a port those of http and https.

    Raises:
        InputError: it is none.
    """
    given, _, variable = text.partition("=")
    try:
        parts = urlsplit(f"//{given.strip()}")
        ports = [parts.port] if parts.port else list(_PORTS.values())
        good = parts.hostname and parts.netloc == given.strip()
        good = good and _is_host(parts) and "@" not in given
    except ValueError:
        good = False
    if not good or (variable and not variable.isidentifier()):
        raise InputError(
            f"{source}: expected HOST, HOST:PORT or HOST=VARIABLE (such as"
            " api.example.com=EXAMPLE_API_KEY)"
        )
    return [(f"{parts.hostname}:{port}", variable or None) for port in ports]


def allowed() -> set[Pair]:
    """Every pair that is allowed in this process."""
    given = json.loads(os.environ.get(_ALLOWED, "[]"))
    return _declared | {(host, variable) for host, variable in given} | _of_file()


def demand(base_url: str, variable: str | None) -> None:
    """Refuse to ask a server that nobody allowed, or to give it that key.

    Raises:
        InputError: what would go where, and how to allow it.
    """
    where, pairs = place(base_url), allowed()
    if is_local(base_url) or (where, variable) in pairs:
        return
    host = where.removesuffix(":443")
    what, pair = "requests", host
    if variable:
        # somebody may have given the key itself
        plain = variable.isupper() and variable.isidentifier()
        name = variable if plain else "VARIABLE"
        what, pair = f"the key in the variable {name}", f"{host}={name}"
        what = what if plain else "a key"
    elif any(host == where for host, _ in pairs):
        return
    raise InputError(
        f"{what} would go to {host}, which no installed judge plugin names for it, no"
        f" flag and not {FILE}; nothing was sent. If you trust that host: --allow-host"
        f" {pair}"
    )


def key_for(base_url: str, variable: str | None) -> str | None:
    """The variable whose key goes to a server: one on this machine needs none, and gets
    only what is allowed.

    Raises:
        InputError: a key would be sent where anybody can read it.
    """
    if variable is None:
        return None
    if is_local(base_url):
        return variable if (place(base_url), variable) in allowed() else None
    if urlsplit(base_url).scheme != "https":
        raise InputError(
            f"a key must not go to {place(base_url)} over plain http, where others read"
            " it; use https"
        )
    return variable


def place(base_url: str) -> str:
    """The host and port that a URL leads to."""
    parts = urlsplit(base_url)
    return f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"


def is_local(base_url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_url(base_url: str) -> tuple[str, str, dict[str, str]]:
    """(URL without a trailing slash or query, host with port, query).

    Raises:
        InputError: when it is no http(s) URL, or carries a user name, password,
            fragment, or a query other than Azure's `api-version`.
    """
    try:
        parts = urlsplit(base_url.strip())
        host = parts.netloc.rpartition("@")[2]
        good = parts.scheme in _PORTS and _is_host(parts) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise InputError(
            "the base URL is no http(s) URL; expected e.g. http://localhost:8000/v1"
            " (a host with other letters than ASCII is written xn--…)"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or set(query) - {"api-version"} or parts.fragment:
        raise InputError(
            f"the base URL of {host} carries a password or query: put the key into an"
            " environment variable"
        )
    bare = parts._replace(query="").geturl()
    return bare.rstrip("/"), host, query


def _is_host(parts: SplitResult) -> bool:
    """Whether every reader of the URL sees the same host in it."""
    host = parts.hostname or ""
    if host.isascii() and all(c.isalnum() or c in "-._" for c in host):
        return bool(host.strip("."))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _of_file() -> set[Pair]:
    try:
        path = Path(FILE).expanduser()
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return set()
    except (OSError, ValueError) as error:
        raise InputError(f"{FILE} cannot be read: {error}") from None
    pairs: set[Pair] = set()
    for host, given in stated.items():
        names = given if isinstance(given, list) else [given]
        if not all(isinstance(name, str) for name in names):
            raise InputError(
                f"{FILE}: {host!r}: expected the variables whose keys may go there,"
                ' such as "gpu7:8000" = [] or "api.example.com" = "EXAMPLE_API_KEY"'
            )
        for name in names or [""]:
            pairs.update(
                parsed(f"{host}={name}" if name else host, f"{FILE}: {host!r}")
            )
    return pairs
