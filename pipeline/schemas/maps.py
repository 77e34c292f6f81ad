"""maps.h5: the map of every image of the retraining set, and of the validation images."""

from dataclasses import replace

from pipeline.store.schema import Between, Codes, Field, Schema

# What the parts of maps.h5 and masks.h5 are of, by the prefix of their datasets.
PARTS = {"": "images of the retraining set", "val/": "validation images"}


def of_part(prefix: str, position: str) -> dict[str, Field]:
    """What maps.h5 and masks.h5 both have of the retraining set, or of the validation images."""
    return {
        f"{prefix}row": Field(
            "int64", (position,), "row in images.h5", values=Codes("images/row", rising=True)
        ),
        f"{prefix}target": Field(
            "int64", (position,), "class that the map explains", values=Codes("images/classes")
        ),
        f"{prefix}cam": Field(
            "float32", (position, "map height", "map width"), "raw map, neither rectified nor upsampled"
        ),
        f"{prefix}channel_mean": Field(
            "float32", (position, 3), "mean colour of the input grid, in [0, 1]", values=Between(0, 1)
        ),
    }


def optional(fields: Schema) -> dict[str, Field]:
    """The same datasets, which may be absent."""
    return {name: replace(field, optional=True) for name, field in fields.items()}


_TRAINING = of_part("", "position")
# Where the masks are given (method foreground or external), there are no maps. The validation images are for
# the diagnosis; maps of masks that serve only to retrain with do not have them.
SCHEMA = {
    **_TRAINING,
    **optional({"cam": _TRAINING["cam"]}),
    **optional(of_part("val/", "val position")),
}
