"""Methods measured on many images, with intervals and paired tests.

    cases -> maps of the methods -> measures -> rows in parts -> summary -> table, CSV, figure

Every image is measured on its own, with noise seeded by its name. The rows of a few images make a part, which is on the
disk as a whole or not at all. So a stopped run goes on, and several processes share the work on one folder, with the
results of one that was not interrupted.
"""

from captum_sgcampp.evaluation.run import evaluate

__all__ = ["evaluate"]
