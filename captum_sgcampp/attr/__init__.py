"""What the user calls: one file per class, as in `captum.attr`."""
