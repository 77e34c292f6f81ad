"""MaC as a library: what notebooks use (`pipeline.load_model`, …) comes from `pipeline.api`, when it is asked for."""

from typing import Any

# Named here too: anything else that is asked of a package may be one of its modules.
_API = frozenset({"load_model", "open_images", "open_masks", "open_features", "images_table", "masks_table"})


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("pipeline.api"), name)
