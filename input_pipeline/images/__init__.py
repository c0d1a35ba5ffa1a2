"""From encoded bytes to pixels: headers, checks, crops."""
