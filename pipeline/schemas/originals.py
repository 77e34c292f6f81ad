"""originals.h5: φ of the images as they are: of the retraining set, and of the validation and test images."""

from itertools import chain

from pipeline.store.schema import SPLITS, Codes, Field


def of_split(split: str) -> dict[str, Field]:
    """What originals.h5 and features.h5 both have of a split."""
    rows = f"{split} position"
    return {
        f"{split}/original": Field("float32", (rows, "feature"), "φ(x) of the original images"),
        f"{split}/label": Field("int64", (rows,), "class", values=Codes("classes")),
        f"{split}/attribute": Field(
            "int64", (rows,), "spurious attribute; -1 unknown", values=Codes("attributes", or_unknown=True)
        ),
        f"{split}/row": Field("int64", (rows,), "row in images.h5", values=Codes("images/row", unique=True)),
    }


SCHEMA = dict(chain.from_iterable(of_split(split).items() for split in SPLITS))
