"""Pages for people, rendered here: they work without JavaScript, and are live with it."""
