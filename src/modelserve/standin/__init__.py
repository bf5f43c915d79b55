"""Stand-ins of what clouds offer: real protocols over a real socket of this machine."""
