"""The network: made, kept, exported, run."""
