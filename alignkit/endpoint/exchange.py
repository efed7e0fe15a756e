"""One request and its answer, bounded in time and bytes whatever the server does: it
may drip, never end, or pack gigabytes into a kilobyte.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from alignkit.endpoint.connection import Connection
from alignkit.endpoint.faults import Fault

if TYPE_CHECKING:
    import httpx

# of one answer: an endpoint is not trusted with this machine's memory
MAX_BYTES = 64 * 2**20
_GZIP_OR_ZLIB = 47  # the `wbits` that reads both


async def exchange(
    connection: Connection,
    client: httpx.AsyncClient,
    method: str,
    url: str,
    body: Mapping[str, object] | None = None,
    *,
    within: float | None = None,
    limit: int = MAX_BYTES,
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and content of one attempt.

    Raises:
        Fault: no answer within the connection's timeout (or `within` seconds), one of
            more than `limit` bytes, packed or not, or none that can be read.
    """
    import httpx

    timeout = connection.timeout if within is None else within
    raw = bytearray()
    try:
        async with (
            # httpx's own limits never end a server that drips bytes
            asyncio.timeout(timeout),
            client.stream(
                method,
                url,
                json=body,
                params=connection.query,
                # what is unpacked here, with an end to it
                headers={"Accept-Encoding": "gzip, deflate"},
            ) as response,
        ):
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Fault(f"no answer within {timeout:g} s", billed=True) from None
    except httpx.RequestError as error:
        kind = type(error).__name__
        text = connection.shown(f"{kind}: {error}".removesuffix(": "))
        billed = not isinstance(error, httpx.ConnectError)
        raise Fault(text, billed=billed) from None
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    return response.status_code, response.headers, _unpacked(raw, packing, limit)


def _unpacked(raw: bytearray, packing: str, limit: int) -> bytes:
    if packing in ("", "identity"):
        return bytes(raw)
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise Fault(f"an answer packed as {packing[:20]!r}, not asked for", billed=True)
    try:
        reader = zlib.decompressobj(_GZIP_OR_ZLIB)
        content = reader.decompress(raw, limit + 1)
    except zlib.error:
        raise Fault(f"an answer that is no {packing}", billed=True) from None
    if len(content) > limit:
        raise _too_large(limit)
    return content


def _too_large(limit: int) -> Fault:
    text = f"the answer is larger than {limit // 2**20} MiB"
    return Fault(text, passing=False, billed=True)
