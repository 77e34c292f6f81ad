"""originals.h5: φ of the images as they are: of the retraining set, and of the validation and test images."""

from itertools import chain

from pipeline.store.schema import SPLITS, Codes, Field


def phi(dims: tuple[str, ...], about: str, *, optional: bool = False, half: bool = True) -> Field:
    """Features. With `half`, `features.storage` says in which of two dtypes they are."""
    return Field("float32", (*dims, "feature"), about, optional=optional, half=half)


def of_split(split: str, *, half: bool = False) -> dict[str, Field]:
    """What originals.h5 and, with `half`, features.h5 both have of a split."""
    rows = f"{split} position"
    return {
        f"{split}/original": phi((rows,), "φ(x) of the original images", half=half),
        f"{split}/label": Field("int64", (rows,), "class", values=Codes("classes")),
        f"{split}/attribute": Field(
            "int64", (rows,), "spurious attribute; -1 unknown", values=Codes("attributes", or_unknown=True)
        ),
        f"{split}/row": Field("int64", (rows,), "row in images.h5", values=Codes("images/row", rising=True)),
    }


SCHEMA = dict(chain.from_iterable(of_split(split).items() for split in SPLITS))
