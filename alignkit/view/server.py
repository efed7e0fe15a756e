"""A server for one person on this machine: it reads, and answers nobody else."""

from __future__ import annotations

import contextlib
import mimetypes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from alignkit.errors import AlignError, MissingError
from alignkit.run.rows import encode
from alignkit.view.library import Library

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


def serve(library: Library, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, not yet at work; port 0 takes a free one.

    Raises:
        MissingError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # a page elsewhere may have its own name point here (DNS rebinding)
            host, port = (self.headers.get("Host") or ""), self.server.server_port  # type: ignore[attr-defined]
            if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
                self._send(403, b"this page is for this machine alone", "text/plain")
                return
            url = urlsplit(self.path)
            if url.path.startswith("/api/"):
                self._answer(url.path.removeprefix("/api/"), url.query)
            else:
                self._file(url.path.lstrip("/") or "index.html")

        def _answer(self, name: str, query: str) -> None:
            try:
                value = library.answer(name, dict(parse_qsl(query, True)))
                status = 200
            except AlignError as error:
                value, status = {"error": str(error)}, 404
            except (OSError, ValueError, LookupError) as error:
                # damaged and foreign folders open as far as they can
                value, status = {"error": f"{type(error).__name__}: {error}"}, 404
            self._send(status, encode([value]), "application/json")

        def _file(self, name: str) -> None:
            path = (STATIC / name).resolve()
            if not path.is_relative_to(STATIC.resolve()) or not path.is_file():
                self._send(404, b"not here", "text/plain")
                return
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self._send(200, path.read_bytes(), kind)

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            text = kind.startswith("text/") or kind.endswith(("javascript", "json"))
            self.send_header("Content-Type", kind + ("; charset=utf-8" if text else ""))
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("Cache-Control", "no-store")
            # the browser may have turned to another page meanwhile
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """The terminal stays quiet."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise MissingError(
            f"port {port} of this machine cannot be had: {error.strerror}; --port 0"
            " takes a free one"
        ) from error
