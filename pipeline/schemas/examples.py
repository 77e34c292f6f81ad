"""examples.h5: the parts of the report that do not depend on α and β."""

from pipeline.store.schema import Codes, Field

PICTURES = "original, map, core, masked and combined of draw 0, as pictures"
PER_FEATURE = "map of each feature with weight 1; a head's map is their weighted sum"

SCHEMA = {
    "train/position": Field(
        "int64",
        ("example",),
        "training image, position in masks.h5",
        values=Codes("masks/position", unique=True),
        empty=True,
    ),
    "train/picture": Field("uint8", ("example", "picture", "height", "width", 3), PICTURES, empty=True),
    "test/position": Field(
        "int64",
        ("mistake",),
        "test image that ERM gets wrong, position in test/ of features.h5",
        values=Codes("features/test position", unique=True),
        empty=True,
    ),
    "test/image": Field(
        "uint8", ("mistake", "height", "width", 3), "its pixels on the input grid", empty=True
    ),
    "test/map": Field("float32", ("mistake", "feature", "map height", "map width"), PER_FEATURE, empty=True),
}
