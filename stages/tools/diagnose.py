"""mac diagnose: say whether the method's assumption seems to hold here."""

from pathlib import Path

import click

from pipeline import graph
from pipeline.results import diagnosis_table, diagnosis_words
from pipeline.results.convergence import whole_diagnosis
from pipeline.results.early_stop import early
from stages.echo import say, say_json
from stages.options import data_option


@click.command("diagnose")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(data: Path, as_json: bool) -> None:
    """Say whether the method's assumption seems to hold here.

    It is that ERM's highest scores lie on the core; or, with saliency.side: rest, that all others do; with
    auto, one of the two for each class.

    ERM sees each validation image whole, as its core alone, as its rest alone, and with its core on the
    backgrounds of two training images: one of its own class and one of another. So it also says whether ERM
    depends on the background, and of which classes this is clear. If ERM was clearly stopped early, it says
    that too. No group label is read. It needs images.h5, erm/, masks.h5 and features.h5.
    """
    with graph.project(data).open("images", "erm", "masks", "features") as given:
        found = whole_diagnosis(given)
    if as_json:
        words = {
            "sentence": diagnosis_words.sentence(found),
            "dependence_sentence": diagnosis_words.dependence(found),
            "early_sentence": early(found),
            "advice": diagnosis_words.advice(found),
            "class_advice": diagnosis_words.by_class(found),
        }
        say_json({**found, **words})
    else:
        say(diagnosis_table.table(found))
