"""Methods measured on many images, with intervals and paired tests.

    cases -> maps of the methods -> measures -> records -> summary -> table, CSV, figure

Every image is measured on its own, with noise seeded by its name, and its results are written before the next image
starts. So a stopped run resumes, with the results of an uninterrupted one.
"""

from captum_sgcampp.evaluation.run import evaluate

__all__ = ["evaluate"]
