"""A Python file as what it does: its statements without layout, comments, docstrings
and what is there for type checkers alone.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from alignkit.errors import PluginError

_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTING = ("import_module", "__import__")
_OPENING = ("open", "read_text", "read_bytes")
# Fields that say how a node is written, not what it does.
_LAYOUT = ("ctx", "kind", "type_comment", "type_ignores")


@dataclass(frozen=True)
class Import:
    """`from module import name as bound`, or, without a name, `import module`."""

    module: str  # absolute
    name: str | None
    bound: str
    tried: bool = field(default=False, repr=False)  # it may be missing: under `try`


@dataclass(frozen=True)
class Statement:
    """One statement at the top level of a file; one imported name."""

    node: ast.stmt | None  # None for an import
    binds: frozenset[str]
    reads: frozenset[str]  # names, its own and others
    imports: tuple[Import, ...]
    # (name, attribute) of every `name.attribute`
    attributes: frozenset[tuple[str, str]] = frozenset()

    @property
    def runs(self) -> bool:
        """Whether it does more than bind names when the file is imported."""
        binding = (*_DEFINING, ast.Assign, ast.AnnAssign, NoneType)
        return not self.binds or not isinstance(self.node, binding)

    @functools.cached_property
    def text(self) -> str:
        """The same for all ways to write the statement."""
        # what is imported inside is said by name, however it is written
        imports = sorted(map(str, self.imports))
        return "".join([*imports, "" if self.node is None else _text(self.node)])


@dataclass(frozen=True)
class Source:
    """A parsed file."""

    statements: tuple[Statement, ...]

    @functools.cached_property
    def bound(self) -> frozenset[str]:
        """The names that the file defines or imports."""
        return frozenset().union(*(s.binds for s in self.statements))

    @functools.cached_property
    def opened(self) -> list[str]:
        """The data files that the code opens by itself."""
        nodes = [statement.node for statement in self.statements if statement.node]
        return list(dict.fromkeys(name for node in nodes for name in _opened(node)))

    def attributes_of(self, name: str) -> list[str]:
        """What is used of an imported module."""
        used = frozenset().union(*(s.attributes for s in self.statements))
        return sorted(attribute for module, attribute in used if module == name)

    @functools.cached_property
    def homes(self) -> dict[str, str]:
        """Of a package that imports lazily: where each name is defined (`_HOME`)."""
        for statement in self.statements:
            if statement.binds == {"_HOME"} and isinstance(statement.node, ast.Assign):
                return dict(ast.literal_eval(statement.node.value))
        return {}


def read(file: Path, package: str) -> Source:
    """Parse a file, once per process as long as it is not changed.

    `package` is where its relative imports start.

    Raises:
        PluginError: the file cannot be read, or is no Python.
    """
    try:
        state = file.stat()
        return _read(file, package, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise PluginError(f"{file}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise PluginError(f"{file}:{line}: {error.args[0]}") from error


@functools.lru_cache(maxsize=4096)
def _read(file: Path, package: str, changed: int, size: int) -> Source:
    block = _without_remarks(ast.parse(file.read_bytes()).body)
    return Source(tuple(s for node in block for s in _statements(node, package)))


def _without_remarks(block: list[ast.stmt]) -> list[ast.stmt]:
    """A block without docstrings, and without what stands under `if TYPE_CHECKING`."""
    kept: list[ast.stmt] = []
    for node in block:
        if isinstance(node, ast.If) and _ends_with(node.test, "TYPE_CHECKING"):
            kept += _without_remarks(node.orelse)
        elif not isinstance(node, ast.Expr) or _literal(node.value) is None:
            kept.append(node)
            _clean_inside(node)
    return kept


def _clean_inside(node: ast.AST) -> None:
    for name, value in ast.iter_fields(node):
        if name in ("body", "orelse", "finalbody") and value:
            setattr(node, name, _without_remarks(value) or [ast.Pass()])
        elif name in ("handlers", "cases"):
            for clause in value:
                _clean_inside(clause)


def _statements(node: ast.stmt, package: str) -> Iterator[Statement]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        for one in _imports(node, package):
            yield Statement(None, frozenset({one.bound}), frozenset(), (one,))
        return
    inner = list(ast.walk(node))
    blocks = [child.body for child in inner if isinstance(child, ast.Try)]
    tried = {child for block in blocks for line in block for child in ast.walk(line)}
    imports = tuple(
        replace(one, tried=child in tried)
        for child in inner
        for one in _imports(child, package)
    )
    names = [child for child in inner if isinstance(child, ast.Name)]
    attributes = {
        (child.value.id, child.attr)
        for child in inner
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name)
    }
    if isinstance(node, _DEFINING):
        binds = {node.name}
    else:
        binds = {name.id for name in names if isinstance(name.ctx, ast.Store)}
        binds |= {one.bound for one in imports}
        binds |= {child.name for child in inner if isinstance(child, _DEFINING)}
    reads = {name.id for name in names}
    yield Statement(
        node, frozenset(binds), frozenset(reads), imports, frozenset(attributes)
    )


def _imports(node: ast.AST, package: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            yield Import(alias.name, None, bound)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            name = "." * node.level + (node.module or "")
            bound = alias.asname or alias.name
            yield Import(_absolute(name, package), alias.name, bound)
    elif isinstance(node, ast.Call) and _called(node) in _IMPORTING:
        for module in filter(None, map(_literal, node.args[:1])):
            yield Import(_absolute(module, package), None, "")


def _absolute(module: str, package: str) -> str:
    name = module.lstrip(".")
    level = len(module) - len(name)
    if not level:
        return name
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [name])])


def _opened(node: ast.AST) -> Iterator[str]:
    """The constant names of the files that are opened, or that lie beside the code;
    `a file` for a name that is no constant.
    """
    inside: list[ast.AST] = []
    if isinstance(node, ast.Call) and _called(node) in _OPENING:
        inside = [*node.args[:1]] if isinstance(node.func, ast.Name) else [node.func]
    elif isinstance(node, ast.BinOp | ast.Call) and "id='__file__'" in ast.dump(node):
        inside = [node]
    if not inside:
        for child in ast.iter_child_nodes(node):
            yield from _opened(child)
        return
    names = [
        (child.lineno, child.col_offset, name)
        for part in inside
        for child in ast.walk(part)
        if isinstance(child, ast.Constant) and (name := _literal(child))
    ]
    line = node.lineno if isinstance(node, ast.expr) else 1
    yield "/".join(name for *_, name in sorted(names)) or f"a file (line {line})"


def _called(node: ast.AST) -> str:
    function = getattr(node, "func", None)
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _ends_with(node: ast.expr, name: str) -> bool:
    return ast.unparse(node).rpartition(".")[2] == name


def _literal(node: Any) -> str | None:
    """The text that a node is, None for any other node."""
    constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(node.value) if constant else None


def _text(value: Any) -> str:
    # not `ast.dump`: what it prints changes between versions of Python
    if isinstance(value, ast.Import | ast.ImportFrom):
        return "import"
    if isinstance(value, ast.AST):
        fields = [
            f"{name}={_text(child)}"
            for name, child in ast.iter_fields(value)
            if name not in _LAYOUT and child not in (None, [])
        ]
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)
