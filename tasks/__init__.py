"""What is learned: a file or folder each for the task's head, loss and score."""
