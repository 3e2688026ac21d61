"""The names that options take. They are defined beside the code that does it, which imports torch. A test holds both
together."""

BUNDLED = "shapes"  # vision.classifiers
EXPLAIN_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++")  # vision.explanations
EVALUATE_METHODS = (  # evaluation.methods
    "grad-cam",
    "grad-cam++",
    "top-feature-map",
    "random",
    "center-gaussian",
    "edges",
    "smooth-grad-cam++",
    "noise-tunnel-grad-cam",
    "noise-tunnel-grad-cam++",
)
METRICS = (  # evaluation.measures
    "drop",
    "curves",
    "occlusion",
    "sparseness",
    "randomization",
    "localization",
    "instances",
    "grid",
)
BASELINES = ("zero", "mean", "blur")  # metrics.curves
