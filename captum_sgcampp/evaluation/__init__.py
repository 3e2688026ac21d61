"""The command `evaluate`: methods measured on many images, with intervals and paired tests.

    subjects -> maps of the methods -> measures -> records -> summary -> table, CSV, figure

Every image is measured on its own, with noise seeded by its name, and its results are written before the next one
starts. So a run that was stopped goes on where it was, and gives what an uninterrupted one gives.
"""

from captum_sgcampp.evaluation.run import add_command, evaluate

__all__ = ["add_command", "evaluate"]
