"""Claims of correctness, each a command: parity, faults, TPU compilation."""
