"""`study`: which runs of everything, from ERM on, are made to compare the methods over."""

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from pipeline.params.block import Block, Seed

SEEDS = ("train.seed", "saliency.seed", "features.seed")  # what the seed of a run takes the place of
VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("should have each seed once")
    return seeds


class StudyParams(Block):
    """The runs: each seed with each variant."""

    block: ClassVar[str] = "study"

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_distinct)] = Field(
        description="a run for each; it takes the place of " + ", ".join(SEEDS)
    )
    variants: Annotated[dict[VariantName, dict[str, Any]], Field(min_length=1)] = Field(
        description="the variants by name: the parameters in which each differs from the rest of this file, "
        "such as {saliency.top_k: 0.2}; {} for none"
    )
