"""What a network learns from, and how."""
