"""PBFT (Castro & Liskov 1999) as a pure state machine. Knows nothing of what its batches contain."""
