"""`import pipeline` for notebooks: every example in its documentation runs."""

import doctest
import subprocess
import sys

import pytest

import pipeline
from pipeline import api
from pipeline.tools import prediction
from tests.conftest import Project


def test_the_examples_run_as_they_stand(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.data.parent)
    for module in (api, prediction):
        found = doctest.testmod(module)
        assert found.attempted >= 4
        assert found.failed == 0


def test_all_of_it_is_there_after_import_pipeline_and_costs_nothing_before() -> None:
    assert set(api.__all__) == pipeline._API
    for name in api.__all__:
        assert getattr(pipeline, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'open_nothing'"):
        pipeline.open_nothing  # noqa: B018
    program = "import sys, pipeline; print('torch' in sys.modules, pipeline.load_model.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "load_model"]
