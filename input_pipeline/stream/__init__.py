"""Which example, when, where: order, decoding in batches, failures."""
