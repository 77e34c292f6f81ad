"""Which code computes: the modules that a module imports, and the packages that they compute with.

Unfinished work is taken up, and a worker may help, only if the code is the same. The modules are found in the
sources, not among those that happen to be loaded, so every process says the same. The sources are those that
were there when this module was loaded: editing a file does not change a process that runs.
"""

import ast
import hashlib
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline import store

_PACKAGE = Path(__file__).parent.parent
# Packages that carry, check or draw what others compute.
NOT_COMPUTING = frozenset({"dask", "distributed", "jinja2", "pyarrow", "pydantic", "safetensors", "tqdm"})
# Packages that are imported by one name and installed by another.
INSTALLED_AS = {
    "PIL": "pillow",
    "pytorch_grad_cam": "grad-cam",
    "ruamel": "ruamel.yaml",
    "sklearn": "scikit-learn",
}
_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)

Code = dict[str, str]


def _on_disk() -> dict[str, bytes]:
    """The source of each module of this package, by its name."""
    found = {}
    for file in _PACKAGE.rglob("*.py"):
        *parents, name = file.relative_to(_PACKAGE.parent).with_suffix("").parts
        with suppress(OSError):  # editors make files of this name, and remove them again
            found[".".join(parents if name == "__init__" else (*parents, name))] = file.read_bytes()
    return found


_LOADED = _on_disk()


@cache
def code_of(module: str) -> Code:
    """The code that a module uses: itself, all that it imports, directly or not, and packages' versions.

    Imports inside functions count; those for type checkers alone do not. Of a module that is not in this
    package, all modules of this package count.

    Returns:
        By name: a module's sha256 as hex; a package's version, or `none` if it is not installed; and those of
        zlib, which Python is linked with, and of libwebp, which Pillow is.
    """
    modules, packages = set[str](), set[str]()
    pending = [module] if module in _LOADED else list(_LOADED)
    while pending:
        name = pending.pop()
        if name not in modules:
            modules.add(name)
            imported = {*_imports(ast.parse(_LOADED[name])), name.rpartition(".")[0]}  # its package runs too
            pending += imported & _LOADED.keys()
            packages |= {each.partition(".")[0] for each in imported}
    digests = {name: hashlib.sha256(_LOADED[name]).hexdigest() for name in sorted(modules)}
    others = packages - sys.stdlib_module_names - NOT_COMPUTING - {_PACKAGE.name, ""}
    linked = {"zlib": zlib.ZLIB_RUNTIME_VERSION} if "zlib" in packages else {}  # masks are packed by it
    if "PIL" in packages:  # images may be
        linked["libwebp"] = store.webp() or "none"
    return digests | {INSTALLED_AS.get(name, name): _version(name) for name in sorted(others)} | linked


def difference(here: Code, there: Code) -> str:
    """What of the code of another process differs, `there` from `here`; empty if nothing does."""
    said = []
    for name in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(name, "none"), there.get(name, "none")
        if ours != theirs:
            said.append(name if name.startswith(_PACKAGE.name) else f"{name} {theirs}, here {ours}")
    return " and ".join([", ".join(said[:3]), *([f"{len(said) - 3} more"] if len(said) > 3 else [])])


def edited(module: str) -> list[str]:
    """The modules that a module uses whose code is not what it was when this process began."""
    now = _on_disk()
    changed = {name for name, source in _LOADED.items() if now.get(name) != source}
    used = sorted(changed & code_of(module).keys()) if changed else []
    return [name for name in used if _parsed(now.get(name, b"")) != _parsed(_LOADED[name])]


def _parsed(source: bytes) -> str:
    """A source without its comments and blanks."""
    with suppress(SyntaxError, ValueError):
        return ast.dump(ast.parse(source))
    return repr(source)


def _imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports: `from a.b import c` gives a.b and a.b.c, because c may be a module."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
        else:
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, _STATEMENTS)]


def _version(package: str) -> str:
    try:
        return version(INSTALLED_AS.get(package, package))
    except PackageNotFoundError:
        return "none"
