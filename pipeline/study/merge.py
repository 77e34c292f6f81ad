"""Stage study: compares the methods over all runs of the study."""

from itertools import chain
from pathlib import Path

from pipeline import store
from pipeline.compute.context import Context
from pipeline.params.block import Block
from pipeline.params.study import StudyParams
from pipeline.project import Opened
from pipeline.results.tables import worst_of
from pipeline.study import figure, kept, table
from pipeline.study.kept import Run
from pipeline.study.over_runs import OTHER_METRICS, OverRuns

Line = dict[str, object]


def study(
    given: Opened,
    json_out: Path,
    csv_out: Path,
    figure_out: Path,
    params: StudyParams,
    *others: Block | Context,
) -> str:
    """Write the results of the study, a table of all runs, and a figure of them; return the text to print.

    study.json has by variant: `methods.<name>`, what each method scores over the runs; and `differences`, the
    paired comparisons of MaC with each other method, and of its masks with random and true ones
    (`study.statistics`). runs.csv has a row for each run and method.

    Args:
        others: the parameters of a run, which all runs should have been made with; the context is not used.

    Raises:
        MacError: a run is missing, damaged, or does not belong to the others of its variant.
    """
    variants, lines = {}, list[Line]()
    blocks = [each for each in (params, *others) if isinstance(each, Block)]
    for name, changes in params.variants.items():
        runs = kept.read(given.project, name, params, blocks)
        variants[name] = {"changes": changes, **OverRuns(runs).as_dict()}
        for run in runs:
            lines += _lines(run)
    found = {"variants": variants}
    columns = list(dict.fromkeys(chain.from_iterable(lines)))
    store.write_csv(csv_out, [{**dict.fromkeys(columns, ""), **line} for line in lines], columns)
    store.write_text(figure_out, figure.of_study(found))
    store.write_json(json_out, found)
    return table.of_study(found)


def _lines(run: Run) -> list[Line]:
    """The rows of runs.csv of one run: means over the heads of each method."""
    lines = []
    for name, row in run.methods.items():
        line: Line = {"variant": run.metrics["variant"], "seed": run.metrics["seed"], "method": name}
        line |= {"title": row["title"], "labels": row["labels"], "heads": row["seeds"]}
        for split in ("val", "test"):
            worst, many = worst_of(row[split])
            for key in (worst, *OTHER_METRICS):
                if key in row[split]:
                    line[f"{split}_{key}"] = row[split][key]["mean"]
            for group, value in row[split][many].items():
                line[f"{split}: {group}"] = value["mean"]
        lines.append(line)
    return lines
