"""The page for correcting a vertex index by hand: :mod:`session` holds the edits, :mod:`page` shows them."""
