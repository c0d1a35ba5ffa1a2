"""Training: the loop, the step that runs on the device, and what both need."""
