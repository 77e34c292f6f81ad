"""What is in the sets of tensors of each kind of model folder, besides the tensors of a trunk."""

from pipeline.store.schema import Codes, Field, Schema

_CLASSIFIER = {
    "head.weight": Field("float32", ("class", "feature"), "the last layer, W"),
    "head.bias": Field("float32", ("class",), "the last layer, b"),
}
_HEADS = {
    "weight": Field("float32", ("seed", "class", "feature"), "W of the head of each seed"),
    "bias": Field("float32", ("seed", "class"), "b of the head of each seed"),
}
_EARLY = {
    "epoch": Field("int64", ("kept",), "the epochs that were kept", values=Codes("epochs", unique=True)),
    "logits": Field("float32", ("kept", "training image", "class"), "ERM's logits after each of them"),
    "erm": Field("int64", (), "ERM's own epoch", optional=True, values=Codes("epochs")),
}
_TEST = {
    "row": Field("int64", ("test image",), "row in images.h5", values=Codes("images/row", unique=True)),
    "label": Field("int64", ("test image",), "class", values=Codes("class")),
    "group": Field("int64", ("test image",), "group, or class where groups are not known"),
}
_ANSWERS = {
    "test": Field("int64", ("seed", "test image"), "the class that it sees in each", values=Codes("class")),
}

# The sets of each kind, and those that it must have besides `model`.
SETS: dict[str, dict[str, Schema]] = {
    "erm": {"model": _CLASSIFIER, "early": _EARLY},
    "retrained": {"model": _CLASSIFIER, "head": _HEADS},
    "jtt": {"model": _CLASSIFIER, "answers": _ANSWERS},
    "masktune": {"model": _CLASSIFIER, "answers": _ANSWERS},
    "run": {"test": _TEST},
}
NEEDED = {
    "retrained": ["head"],
    "jtt": ["answers"],
    "masktune": ["answers"],
    "run": ["answers", "test"],
}


def fields_of(kind: str, tensors: str, names: list[str]) -> Schema:
    """What the tensors of a set should be.

    Args:
        kind: the kind of model folder.
        tensors: the name of the set.
        names: the names of its tensors; those of baselines and run begin with the names of the methods.
    """
    fields: dict[str, Field] = {}
    if (kind, tensors) == ("run", "answers"):
        for method in names:
            axes = (f"seed of {method}", "test image")
            fields[method] = Field("int16", axes, "the class that each head sees", values=Codes("class"))
        return fields
    if (kind, tensors) not in (("baselines", "model"), ("run", "model")):
        return SETS.get(kind, {}).get(tensors, {})
    for method in dict.fromkeys(name.rpartition(".")[0] for name in names):
        seed = f"seed of {method}"
        fields[f"{method}.weight"] = Field("float32", (seed, "class", "feature"), "W of its heads")
        fields[f"{method}.bias"] = Field("float32", (seed, "class"), "b of its heads")
    return fields
