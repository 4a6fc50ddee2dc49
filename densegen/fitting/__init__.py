"""The morphable model fitted to landmarks: pose, identity and expression of a face from points that are known of it."""
