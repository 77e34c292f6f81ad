"""MaC as a library. `pipeline.load_model` and what else notebooks use is imported when it is asked for."""

from typing import Any

# Other attributes of the package may be its modules, so these are named here as well.
_API = frozenset({"load_model", "open_images", "open_masks", "open_features", "images_table", "masks_table"})


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("pipeline.api"), name)
