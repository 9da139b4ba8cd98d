"""The door: bytes from peers become verified messages, or a reason why not. Knows no state."""
