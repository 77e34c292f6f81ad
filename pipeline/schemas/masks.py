"""masks.h5: map and mask of every image of the retraining set, and of the validation images."""

from dataclasses import replace

from pipeline.store.schema import Between, Codes, Field, Schema


def _part(prefix: str, position: str) -> Schema:
    return {
        f"{prefix}row": Field(
            "int64", (position,), "row in images.h5", values=Codes("images/row", unique=True)
        ),
        f"{prefix}target": Field(
            "int64", (position,), "class that the map explains", values=Codes("images/classes")
        ),
        f"{prefix}mask": Field(
            "bool", (position, "height", "width"), "the core, pixels of the input grid", "gzip"
        ),
        f"{prefix}cam": Field(
            "float32", (position, "map height", "map width"), "raw map, neither rectified nor upsampled"
        ),
        f"{prefix}channel_mean": Field(
            "float32", (position, 3), "mean colour of the input grid, in [0, 1]", values=Between(0, 1)
        ),
        f"{prefix}quantile": Field(
            "float32",
            (position,),
            "q: K is the share 1 − q of the pixels (size knee)",
            optional=True,
            values=Between(0, 1),
        ),
        f"{prefix}has_knee": Field(
            "bool", (position,), "whether q is at a knee; if not, it is 0.8 (size knee)", optional=True
        ),
    }


# The validation images are for the diagnosis; masks that serve only to retrain with do not have them.
SCHEMA = {
    **_part("", "position"),
    "rest": Field("bool", ("class",), "whether it takes the side rest; else core (side auto)", optional=True),
    **{name: replace(field, optional=True) for name, field in _part("val/", "val position").items()},
}
