"""What readers return: records, the same for every dataset."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.names import shortened
from pipeline.datasets.sources import Source, check_name
from pipeline.errors import MacError, quoted
from pipeline.metrics import NOT_KNOWN, Groups
from pipeline.spec import checked_names
from pipeline.store import SPLITS


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        attribute: index into the dataset's attributes, or UNKNOWN.
        split: 0 train, 1 val, 2 test.
        foreground: the true mask, which has the size of the image; or None.
        where: the file and line that it comes from, for messages; empty if it is from no table.
    """

    image: Source
    label: int
    attribute: int
    split: int
    foreground: Source | None = None
    where: str = ""


@dataclass(frozen=True)
class Dataset:
    """All records of a dataset, in the order of its metadata.

    Attributes:
        notes: what the reader noticed and the user should know, one line each: files that are not used,
            values that were read as unknown. Stage prepare and `mac doctor` tell them.
    """

    root: Path
    records: list[Record]
    groups: Groups
    notes: tuple[str, ...] = ()

    def check(self, images: str = "image") -> None:
        """Check that there are images to train and to test on, each of them once.

        Args:
            images: the word for an image in the message.

        Raises:
            MacError: an image with two records, fewer than two classes, two groups of one name, a name
                that is no line of text, a split without images, or a class without training images.
        """
        self._check_repeated()
        classes = self.groups.classes
        if len(classes) < 2:
            raise MacError(
                f"{self.root}: only one class ({', '.join(classes)}); a classifier needs two or more"
            )
        self._check_names()
        found = {record.split for record in self.records}
        for split, name in enumerate(SPLITS):
            if split not in found:
                needs = "the pipeline needs train, val and test images"
                raise MacError(f"{self.root}: no {images} is in the split {name}; {needs}")
        trained = {record.label for record in self.records if record.split == 0}
        if untrained := [name for label, name in enumerate(classes) if label not in trained]:
            raise MacError(f"{self.root}: no training {images} is of class {', '.join(untrained)}")

    def _check_names(self) -> None:
        classes, attributes = self.groups.classes, self.groups.attributes
        for name in (*classes, *attributes):
            check_name(name, str(self.root))
            if len(name.splitlines()) > 1 or "\0" in name:
                raise MacError(
                    f"{self.root}: the name {quoted(name)} of a class or attribute is no line of text; "
                    "rename it"
                )
        if NOT_KNOWN in attributes:
            raise MacError(
                f"{self.root}: an attribute is named {NOT_KNOWN}, the word for those that are not known; "
                "leave it empty, or rename it"
            )
        try:
            checked_names(classes, "classes")
            checked_names(attributes, "attributes")
            _ = self.groups.names
        except ValueError as error:
            raise MacError(f"{self.root}: {error}; rename it") from None
        except MacError as error:
            raise MacError(f"{self.root}: {error}") from None

    def _check_repeated(self) -> None:
        first: dict[str, Record] = {}
        repeated = [
            record for record in self.records if first.setdefault(record.image.name, record) is not record
        ]
        if not repeated:
            return
        record, names = repeated[0], list(dict.fromkeys(record.image.name for record in repeated))
        before = first[record.image.name].where.rpartition(", ")[2] or "as another record"
        others = ", ".join(shortened(names[1:]))
        more = f"; {len(names) - 1} more are repeated: {others}" if others else ""
        raise MacError(
            f"{record.where or self.root}: path '{record.image.name}' is there already ({before}); an image "
            f"has one row{more}"
        )
