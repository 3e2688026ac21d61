"""The names that options take. They are defined beside the code that does it, which imports torch. A test holds both
together."""

BUNDLED = "shapes"  # vision.classifiers
DEFAULT_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++")  # vision.methods
EXPLAIN_METHODS = (  # vision.methods
    *DEFAULT_METHODS,
    "two-sided-grad-cam++",
    "two-sided-smooth-grad-cam++",
    "hires-cam",
    "layer-cam",
)
FILE_KINDS = ("image", "clip", "volume", "signal")  # vision.recordings
EVALUATE_METHODS = (  # evaluation.methods
    "grad-cam",
    "grad-cam++",
    "smooth-grad-cam++",
    "two-sided-grad-cam++",
    "two-sided-smooth-grad-cam++",
    "grad-cam++-without-relu",
    "hires-cam",
    "layer-cam",
    "log-odds-grad-cam",
    "log-odds-grad-cam++",
    "log-odds-two-sided-grad-cam++",
    "log-odds-two-sided-smooth-grad-cam++",
    "log-odds-hires-cam",
    "top-feature-map",
    "noise-tunnel-grad-cam",
    "noise-tunnel-grad-cam++",
    "uniform",
    "random",
    "center-gaussian",
    "edges",
)
METRICS = (  # evaluation.measures
    "drop",
    "kept",
    "occluded",
    "curves",
    "occlusion",
    "sparseness",
    "randomization",
    "localization",
    "instances",
    "grid",
)
BASELINES = ("zero", "mean", "blur")  # metrics.curves
