"""A real browser at the page of runs, and what its tests have in common."""

from __future__ import annotations

import http.client
import shutil

import pytest

HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    "[a](javascript:window.hacked=1) \x1b[31m \u202egnp.exe \x00 \ud800 </script>"
)

CHROMIUM = shutil.which("chromium")
browser_only = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: make browser"
)


def get(
    server: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    port = int(server.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()


class Page:
    """A page and what it said and asked for."""

    def __init__(self, browser, **options):
        self.page = browser.new_page(**options)
        self.said, self.asked = [], []
        self.page.on(
            "console", lambda m: self.said.append(m.text) if m.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append("dialog"))

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector(".side pre, table")

    def until(self, expression: str) -> None:
        """Wait for an expression; playwright's own way needs eval, which the page
        forbids.
        """
        for _ in range(200):
            if self.page.evaluate(f"() => Boolean({expression})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{expression} never came true: {self.page.url}")
