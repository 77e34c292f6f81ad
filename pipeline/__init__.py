"""MaC as a library: `pipeline.load_model` and the other names for notebooks, imported at first use."""

from typing import Any

# Python asks `__getattr__` for modules of the package too. It knows these names without pipeline.api.
_OPENED = ("images", "maps", "masks", "originals", "features")
_API = frozenset({"load_model", "images_table", "masks_table", *(f"open_{name}" for name in _OPENED)})


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("pipeline.api"), name)
