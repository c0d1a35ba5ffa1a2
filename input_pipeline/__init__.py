"""Images from any source to batches, every random choice a function of (seed, epoch, example)."""
