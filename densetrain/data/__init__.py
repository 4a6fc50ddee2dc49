"""Shards as batches for training."""
