"""The models of one server: which there are, which are loaded, and where each comes from."""
