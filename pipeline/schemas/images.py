"""images.h5: every image of the dataset at one size."""

from pipeline.store.schema import Between, Codes, Field, Offsets

SCHEMA = {
    "image": Field("uint8", ("row", "height", "width", 3), "RGB at the stored size", encoded="encoded"),
    "encoded/bytes": Field(
        "uint8",
        ("byte",),
        "instead of `image`: its rows as lossless WebP files, in one piece",
        optional=True,
    ),
    "encoded/offset": Field(
        "int64",
        ("bound",),
        "where the file of each row begins, and where the last one ends",
        optional=True,
        values=Offsets("byte"),
    ),
    "label": Field("int64", ("row",), "class, index into the attribute `classes`", values=Codes("classes")),
    "attribute": Field(
        "int64",
        ("row",),
        "spurious attribute, index into the attribute `attributes`; -1 unknown",
        values=Codes("attributes", or_unknown=True),
    ),
    "split": Field("int8", ("row",), "0 train, 1 val, 2 test", values=Between(0, 2)),
    "path": Field("utf-8", ("row",), "file, relative to the dataset's folder"),
    "foreground": Field(
        "bool", ("row", "height", "width"), "true mask at the stored size", "gzip", optional=True
    ),
    "has_foreground": Field("bool", ("row",), "whether `foreground` is known for the row", optional=True),
}
