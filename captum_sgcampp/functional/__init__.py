"""Pure functions: tensors in, tensors out. They know no model and no Captum; to be read with the papers open."""
