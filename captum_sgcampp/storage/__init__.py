"""Files that survive: whole or absent, whatever stops the process. Knows no tensor and no model."""
