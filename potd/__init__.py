"""Proof-of-Training daemon: idle rigs train one model, validators agree on every round by PBFT."""

__version__ = "0.1.0"
