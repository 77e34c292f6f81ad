"""MaC as a library: `pipeline.load_model` and the other names for notebooks, imported at first use."""

from typing import Any

# Python asks `__getattr__` for modules of the package too. It knows these names without pipeline.api.
_API = frozenset({"load_model", "open_images", "open_masks", "open_features", "images_table", "masks_table"})


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("pipeline.api"), name)
