"""masks.h5: map and mask of every image of the retraining set, and of the validation images."""

from pipeline.schemas.maps import of_part, optional
from pipeline.store.schema import Between, Field, Schema


def _part(prefix: str, position: str) -> Schema:
    return {
        **of_part(prefix, position),
        f"{prefix}mask": Field(
            "bool", (position, "height", "width"), "the core, pixels of the input grid", "gzip"
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
    **optional(_part("val/", "val position")),
}
