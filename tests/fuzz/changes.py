"""Changes of JSON, CSV and tensors."""

import csv
import io
import json
import random
from typing import Any

import numpy as np


def _odd(rng: random.Random) -> Any:
    """A value that is not expected."""
    nested: Any = 1
    for _ in range(60):
        nested = [nested]
    numbers = [
        0,
        1,
        -1,
        2,
        7,
        0.5,
        1e308,
        -1e308,
        1e-320,
        float("nan"),
        float("inf"),
        10**9,
        10**25,
        -(2**63),
    ]
    texts = ["", "x", "\ud800", "a\nb", "<b>", "x" * 5000, "\x00", "nan", "1", "../../x"]
    holders = [[], {}, [[]], [None], {"": None}, {"mean": "x", "std": None}, nested, [1, 2, 3], ["a", "a"]]
    return rng.choice([None, True, False, *numbers, *texts, *holders])


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    found = []
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            found += _places(value[key])
    return found


def mutate_json(value: Any, rng: random.Random) -> None:
    """Change one thing in a JSON object, in place."""
    places = _places(value)
    if not places:
        value["x"] = _odd(rng)
        return
    holder, key = rng.choice(places)
    how = rng.choice(["odd", "odd", "odd", "drop", "text", "number", "swap", "double", "wrap", "rename"])
    now = holder[key]
    if how == "drop":
        del holder[key]
    elif how == "text":
        holder[key] = json.dumps(now)
    elif how == "number" and isinstance(now, (int, float)):
        holder[key] = rng.choice([-now, now * 10, now + 1, int(now), float(now), now - 1])
    elif how == "swap":
        other, there = rng.choice(places)
        holder[key], other[there] = json.loads(json.dumps(other[there])), json.loads(json.dumps(now))
    elif how == "double" and isinstance(now, list):
        holder[key] = rng.choice([now + now, now[:-1], now[::-1], now[:1]])
    elif how == "wrap":
        holder[key] = rng.choice([[now], {"x": now}])
    elif how == "rename" and isinstance(holder, dict):
        holder[rng.choice(["x", "", f"{key} ", *map(str, holder)])] = holder.pop(key)
    else:
        holder[key] = _odd(rng)


def mutate_text(text: str, rng: random.Random) -> bytes:
    """Change JSON or CSV as text."""
    how = rng.randrange(9)
    start = rng.randrange(len(text))
    if how == 0:
        return text[:start].encode()
    if how == 1:
        return text.encode() + b"\xff\xfe"
    if how == 2:
        return ("[" * 100_000).encode()
    if how == 3:
        return text.replace("1", "1" * 5000, 1).encode()
    if how == 4:
        return text.encode("utf-16")
    if how == 5:
        return b""
    if how == 6:
        return (text[:start] + "\x00" + text[start:]).encode()
    if how == 7:
        return text.replace("{", '{"made_from": {}, "made_from": 1, ', 1).encode()
    return ('{"x": ' * 5000 + "1" + "}" * 5000).encode()


def mutate_csv(text: str, rng: random.Random) -> bytes:
    """Change one thing in a CSV file."""
    rows = list(csv.reader(io.StringIO(text)))
    how = rng.randrange(12)
    row = rng.choice(rows)
    cell = rng.randrange(len(row))
    if how == 0:
        return mutate_text(text, rng)
    if how == 1:
        rows = [each[:cell] + each[cell + 1 :] for each in rows]
    elif how == 2:
        del row[cell]
    elif how == 3:
        row.insert(cell, "1")
    elif how == 4:
        rows.remove(row)
    elif how == 5:
        rows.append(row)
    elif how == 6:
        row[cell] = "x" * 200_000
    elif how == 7:
        rows = rows[:1]
    elif how == 8:
        rows[0][cell] = rows[0][0]
    else:
        odd = ["", "nan", "inf", "-1", "1e999", "abc", "0", "1", "2", "0x1", "1_0", "٣", "1" * 5000]
        row[cell] = rng.choice(odd)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def mutate_tensors(tensors: dict[str, Any], rng: random.Random) -> None:
    """Change one tensor, in place; one of the last layer as likely as one of the trunk."""
    heads = [name for name in tensors if not name.startswith("trunk.")]
    name = rng.choice(heads if heads and rng.random() < 0.7 else list(tensors))
    array = tensors[name]
    how = rng.randrange(10)
    if how == 0:
        del tensors[name]
    elif how == 1:
        tensors[rng.choice([f"{name}.x", "x", "head.weight", "trunk.x"])] = tensors.pop(name)
    elif how == 2:
        tensors["extra"] = np.zeros(3, np.float32)
    elif how == 3:
        array = np.atleast_1d(array)
        shapes = [array[..., None], array[None], array.reshape(-1), array[:0], array[..., :-1], array.T]
        tensors[name] = rng.choice(shapes)
    elif how == 4:
        dtype = rng.choice([np.float64, np.float16, np.int64, np.bool_, np.uint8, np.int8])
        with np.errstate(all="ignore"):
            tensors[name] = np.nan_to_num(array).astype(dtype)
    elif how == 5:
        tensors[name] = np.concatenate([array, array]) if array.ndim else np.stack([array, array])
    else:
        changed = np.array(array)
        values = [np.nan, np.inf, -np.inf, 3e38]
        if changed.dtype.kind != "f":
            large = 2 ** (8 * changed.itemsize - 2)
            values = [-1, large, -large]
        if how == 6 or not changed.ndim:
            changed[...] = rng.choice(values)
        else:
            changed.reshape(-1)[rng.randrange(max(changed.size, 1)) :][:1] = rng.choice(values)
        tensors[name] = changed
