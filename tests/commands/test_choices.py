"""The names that options take are those that the code behind them knows."""

from __future__ import annotations

from captum_sgcampp.commands import choices
from captum_sgcampp.evaluation.groups import groups
from captum_sgcampp.evaluation.methods import METHODS as EVALUATE_METHODS
from captum_sgcampp.metrics.curves import BASELINES
from captum_sgcampp.vision.classifiers import BUNDLED
from captum_sgcampp.vision.methods import DEFAULT_METHODS
from captum_sgcampp.vision.methods import METHODS as EXPLAIN_METHODS


def test_names_of_options_are_those_of_the_code() -> None:
    assert choices.BUNDLED == BUNDLED
    assert choices.BASELINES == BASELINES
    assert choices.DEFAULT_METHODS == DEFAULT_METHODS
    assert list(choices.EXPLAIN_METHODS) == list(EXPLAIN_METHODS)
    assert sorted(choices.EVALUATE_METHODS) == sorted(EVALUATE_METHODS)
    assert list(choices.METRICS) == list(groups(1))
