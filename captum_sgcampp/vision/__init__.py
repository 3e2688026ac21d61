"""Image classifiers for the commands: image files, models with their preprocessing, and the choice of a layer.

images -> classifiers or model_factory -> layer_choice
"""
