"""The list of stages holds together."""

import inspect

import pytest

from pipeline.graph import KINDS, STAGES, Stage


def test_every_stage_needs_what_an_earlier_one_makes() -> None:
    made: set[str] = set()
    for stage in STAGES:
        assert set(stage.needs) <= made, stage.name
        made |= {kind.name for kind in stage.makes}
    assert made == set(KINDS)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_s_function_takes_its_outs_and_parameters_in_this_order(stage: Stage) -> None:
    taken = list(inspect.signature(stage.function(), eval_str=True).parameters.values())
    named = taken[1 + len(stage.makes) : -1]
    models = [parameter.annotation for parameter in named]
    assert models == stage.models()[: len(models)]
    if stage.name == "study":  # it compares the other parameters with those of the runs, whichever they are
        assert taken[-1].kind is inspect.Parameter.VAR_POSITIONAL
    else:
        assert len(models) == len(stage.params)
        assert taken[-1].name.strip("_") == "context"
    assert taken[0].name.strip("_") == "given"


def test_messages_name_the_command_that_makes_an_artefact() -> None:
    assert KINDS["maps"].remedy == "run 'mac saliency'"
