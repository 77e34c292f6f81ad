"""features.h5: φ of all views of the retraining set, and of the validation and test images."""

from pipeline.schemas.originals import of_split
from pipeline.store.schema import Batches, Between, Codes, Field


def _views_of_validation() -> dict[str, Field]:
    """There are none if masks.h5 has no validation images."""
    views = ("val draw", "masked position", "feature")
    drawn = ("val draw", "masked position")
    about = "validation images with a mask, position in val/"
    return {
        "val/position": Field(
            "int64",
            ("masked position",),
            about,
            optional=True,
            values=Codes("val position", unique=True),
        ),
        "val/masked": Field("float32", views, "φ of the core alone, filled with b", optional=True),
        "val/rest": Field("float32", views, "φ of the rest alone, filled with b", optional=True),
        "val/combined": Field("float32", views, "φ of the combined views", optional=True),
        "val/combined_same": Field(
            "float32",
            views,
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
    **of_split("train"),
    "train/masked": Field("float32", ("draw", "train position", "feature"), "φ of the masked views"),
    "train/combined": Field("float32", ("draw", "train position", "feature"), "φ of the combined views"),
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
    **of_split("val"),
    **_views_of_validation(),
    **of_split("test"),
}
