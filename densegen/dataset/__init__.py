"""From fits to shards, and back."""
