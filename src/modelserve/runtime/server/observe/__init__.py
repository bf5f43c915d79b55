"""What a server says of its work to machines that watch it."""
