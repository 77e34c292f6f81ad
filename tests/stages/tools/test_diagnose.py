"""mac diagnose prints what the library finds."""

import json

from pipeline import project
from pipeline.results import diagnosis_table, diagnosis_words
from pipeline.results.convergence import whole_diagnosis
from pipeline.results.early_stop import early
from tests.conftest import Project


def test_the_table_and_the_json_are_the_library_s(artefacts: project.Project) -> None:
    with artefacts.open("images", "erm", "masks", "features") as given:
        found = whole_diagnosis(given)
    mac = Project(artefacts.data.parent)
    assert mac.succeed("diagnose").stdout == f"{diagnosis_table.table(found)}\n"
    words = {
        "sentence": diagnosis_words.sentence(found),
        "dependence_sentence": diagnosis_words.dependence(found),
        "early_sentence": early(found),
        "advice": diagnosis_words.advice(found),
        "class_advice": diagnosis_words.by_class(found),
    }
    assert json.loads(mac.succeed("diagnose", "--json").stdout) == {**found, **words}


def test_it_names_what_is_missing(own_artefacts: project.Project) -> None:
    own_artefacts.path("features").unlink()
    result = Project(own_artefacts.data.parent).run("diagnose")
    assert result.exit_code == 1
    assert "features.h5: no such file; run 'mac features'" in result.stderr
