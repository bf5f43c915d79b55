"""What the paths of a server do."""
