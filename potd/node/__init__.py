"""How the cores feed one another: one deterministic machine, `Node.step(input) -> effects`."""
