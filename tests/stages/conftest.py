"""The made-up project, for tests that need no stage to have run."""

from tests.made_up import artefacts, own_artefacts

__all__ = ["artefacts", "own_artefacts"]
