"""From a photograph or a clip to landmarks."""
