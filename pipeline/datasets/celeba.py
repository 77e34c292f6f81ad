"""CelebA (Liu et al. 2015), in either published form: the official text files, or Kaggle's CSV files.

<root>/list_attr_celeba.{txt,csv}         40 attributes of every image, -1 or 1
<root>/list_eval_partition.{txt,csv}      its split: 0, 1 or 2
<root>/img_align_celeba/*.jpg             178 x 218 pixels (Kaggle's archive has a second such folder inside)

The folder celebA_v1.0 of WILDS (github.com/p-lambda/wilds, wilds/datasets/celebA_dataset.py) is the second.
Any attribute may be the class, and any others the spurious attributes.
"""

from itertools import product
from pathlib import Path

from pydantic import Field

from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.datasets.table import Row, read_lines, read_table, rows_of
from pipeline.datasets.tabular import Several, as_list, combined
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.params.block import Block

CODES = {"-1": 0, "0": 0, "1": 1}
SPLITS = {"0": 0, "1": 1, "2": 2}


class Options(Block):
    """Which of the 40 attributes are used."""

    label: str = Field(default="Blond_Hair", description="the attribute that is the class")
    attribute: Several = Field(
        default="Male", description="the attribute that is spurious, or a list of several"
    )


def read(root: Path, options: Options) -> Dataset:
    """Read the two lists. The classes are `not_<label>` and `<label>`; the attributes have the same form.

    Several attributes give all their combinations, such as `Male+not_Smiling`.

    Raises:
        MacError: no such files, no such attribute, a value out of range, or an image that is not in the
            partition, or twice in it.
    """
    partition, lines = dict[str, int](), dict[str, str]()
    for row in _rows(root, "list_eval_partition", ["partition"]):
        name = row["image_id"]
        if name in partition:
            raise MacError(f"{row.where}: {name} is there already ({lines[name]}); an image has one row")
        partition[name], lines[name] = row.code("partition", SPLITS, "0, 1 or 2"), row.line
    folder = "img_align_celeba"
    if (root / folder / folder).is_dir():
        folder = f"{folder}/{folder}"
    spurious = as_list(options.attribute)
    pairs = [(f"not_{name}", name) for name in spurious]
    groups = Groups(
        (f"not_{options.label}", options.label), combined(list(product(*pairs)), "dataset.options.attribute")
    )
    records = []
    for row in _rows(root, "list_attr_celeba", [options.label, *spurious]):
        name = row["image_id"]
        if name not in partition:
            raise MacError(
                f"{row.where}: {name} is not in list_eval_partition; the two files should be of one release"
            )
        label, *values = (row.code(column, CODES, "-1 or 1") for column in (options.label, *spurious))
        attribute = 0
        for value in values:
            attribute = 2 * attribute + value
        image = ImageFile(inside(root, f"{folder}/{name}", row.where))
        records.append(Record(image, label, attribute, partition[name], where=row.where))
    return Dataset(root, records, groups)


def _rows(root: Path, name: str, columns: list[str]) -> list[Row]:
    remedy = "dataset.root should be the folder of the CelebA release"
    csv, text = root / f"{name}.csv", root / f"{name}.txt"
    if csv.is_file():
        return read_table(csv, ["image_id", *columns], remedy)
    if not text.is_file():
        raise MacError(f"{root}: neither {text.name} nor {csv.name} is there; {remedy}")
    # Blanks separate the cells. In the attributes' file, the first line has the number of images, and the
    # second the names of the attributes. The partition's file has no such lines.
    lines = [(number, line.split()) for number, line in enumerate(read_lines(text, remedy), 1)]
    lines = [line for line in lines if line[1]]
    header = columns
    if name == "list_attr_celeba" and lines:
        header, lines = _header(text, lines)
    return rows_of(text, ["image_id", *header], lines, ["image_id", *columns])


def _header(file: Path, lines: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the attributes, and the lines of the images.

    Raises:
        MacError: the two lines above the images are not there, or count other images.
    """
    expected = (
        "the first line of the official file has the number of images, the second the attributes' names"
    )
    count = lines[0][1]
    if len(count) != 1 or not count[0].isdecimal():
        found = (
            "the attributes' names" if all(not cell.lstrip("-").isdecimal() for cell in count) else "an image"
        )
        raise MacError(
            f"{file}, line {lines[0][0]}: has {found}, no number of images; {expected}: add what is missing"
        )
    if len(lines) < 2 or any(cell in CODES for cell in lines[1][1]):
        raise MacError(f"{file}: has no attributes' names below the number of images; {expected}: add them")
    if int(count[0]) != len(lines) - 2:
        raise MacError(
            f"{file}: its first line says {count[0]} images, but {len(lines) - 2} are listed; the file is "
            "not whole, or the number is wrong"
        )
    return lines[1][1], lines[2:]
