"""Arithmetic on arrays: where pixels, vertices and frames meet. Touches no file."""
