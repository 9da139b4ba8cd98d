"""Names, bytes, signatures and Merkle trees: everything that two nodes must agree on to the bit."""
