"""Encodings, exact sums, robust rules and outer optimisers: what every validator must compute to the same bits."""
