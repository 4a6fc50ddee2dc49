"""Other files that a vertex index is read from and written to."""
