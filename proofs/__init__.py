"""Commands that check correctness: parity, faults, TPU compilation."""
