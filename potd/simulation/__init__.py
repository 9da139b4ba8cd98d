"""The whole network in one process on virtual time: the same nodes as in production, and all that can befall them."""
