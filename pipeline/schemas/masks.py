"""masks.h5: map and mask of every image of the retraining set."""

from pipeline.store.schema import Field

SCHEMA = {
    "row": Field("int64", ("position",), "row in images.h5"),
    "target": Field("int64", ("position",), "class that the map explains"),
    "mask": Field("bool", ("position", "height", "width"), "the core: K pixels of the input grid", "gzip"),
    "cam": Field(
        "float32", ("position", "map height", "map width"), "raw map, neither rectified nor upsampled"
    ),
    "channel_mean": Field("float32", ("position", 3), "mean colour over the input grid, in [0, 1]"),
}
