"""features.h5: φ of all views of the retraining set, and of the validation and test images.

The masked and combined views of a draw lie in the order in which retraining reads them: its batches one after
another. So a batch is one piece of the file.
"""

from pipeline.schemas.originals import of_split, phi
from pipeline.store.schema import Batches, Between, Codes, Field, Orders


def _views_of_validation() -> dict[str, Field]:
    """There are none if masks.h5 has no validation images."""
    drawn = ("val draw", "masked position")
    about = "validation images with a mask, position in val/"
    return {
        "val/position": Field(
            "int64",
            ("masked position",),
            about,
            optional=True,
            values=Codes("val position", rising=True),
        ),
        "val/masked": phi(drawn, "φ of the core alone, filled with b", optional=True),
        "val/rest": phi(drawn, "φ of the rest alone, filled with b", optional=True),
        "val/combined": phi(drawn, "φ of the combined views", optional=True),
        "val/combined_same": phi(
            drawn,
            "φ of the core on an image of the same class; absent if train/ lacks a class of these images",
            optional=True,
        ),
        "val/train_partner": Field(
            "int32",
            drawn,
            "partner of combined, position in train/",
            optional=True,
            values=Codes("train position"),
        ),
        "val/train_partner_same": Field(
            "int32",
            drawn,
            "partner of combined_same, position in train/; absent likewise",
            optional=True,
            values=Codes("train position"),
        ),
        "val/batch": Field("int32", drawn, "the image's batch in the draw", optional=True, values=Batches()),
        "val/fill": Field("float32", (*drawn, 3), "fill b, in [0, 1]", optional=True, values=Between(0, 1)),
    }


SCHEMA = {
    **of_split("train", half=True),
    "train/order": Field(
        "int32",
        ("draw", "place"),
        "the position in train/ of the image whose views are at each place of masked and combined",
        values=Orders("train position", "train/batch"),
    ),
    "train/masked": phi(("draw", "place"), "φ of the masked views, in this order: batch after batch"),
    "train/combined": phi(("draw", "place"), "φ of the combined views, in this order: batch after batch"),
    "train/partner": Field(
        "int32",
        ("draw", "train position"),
        "partner j, position in train/",
        values=Codes("train position"),
    ),
    "train/batch": Field(
        "int32",
        ("draw", "train position"),
        "the image's batch in the draw",
        values=Batches(),
    ),
    "train/fill": Field("float32", ("draw", "train position", 3), "fill b, in [0, 1]", values=Between(0, 1)),
    "train/intervened": Field(
        "bool",
        ("train position",),
        "whether its masked and combined views train the head; absent if all do (low_loss 1)",
        optional=True,
    ),
    **of_split("val", half=True),
    **_views_of_validation(),
    **of_split("test", half=True),
}
