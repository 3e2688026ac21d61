"""Pure functions: tensors in, tensors out. They know no model and no Captum. Read them with the papers open."""
