"""Images in, tracks out: detector, 3-D back-projection, tracker, target selection."""
