"""Models that other programs keep on this machine. They are read where they lie; nothing is changed."""
