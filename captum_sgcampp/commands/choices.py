"""The names that options take. They are defined beside the code that does it, which imports torch. A test holds both
together."""

BUNDLED = "shapes"  # vision.classifiers
DEFAULT_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++")
EXPLAIN_METHODS = (*DEFAULT_METHODS, "two-sided-grad-cam++", "two-sided-smooth-grad-cam++")  # vision.methods
FILE_KINDS = ("image", "clip", "volume", "signal")  # vision.recordings
EVALUATE_METHODS = (  # evaluation.methods
    "grad-cam",
    "grad-cam++",
    "two-sided-grad-cam++",
    "top-feature-map",
    "random",
    "center-gaussian",
    "edges",
    "smooth-grad-cam++",
    "two-sided-smooth-grad-cam++",
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
