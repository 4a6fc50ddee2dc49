"""Which points of the face are the landmarks."""
