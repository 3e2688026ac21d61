"""Methods measured on many images, with intervals and paired tests.

    cases -> maps of the methods -> measures -> records -> summary -> table, CSV, figure

Every image is measured on its own, with noise seeded by its name, and its results are written before the next one
starts. So a run that was stopped goes on where it was, and gives what an uninterrupted one gives.
"""

from captum_sgcampp.evaluation.run import evaluate

__all__ = ["evaluate"]
