"""Tasks: loss, measurement and score, one file or folder each."""
