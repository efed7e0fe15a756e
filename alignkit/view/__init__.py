"""The page of runs: a server on this machine, and one file to send."""

from alignkit.view.export import export
from alignkit.view.library import Library
from alignkit.view.server import serve

__all__ = ["Library", "export", "serve"]
