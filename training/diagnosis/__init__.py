"""What went wrong in a step that was not finite."""
