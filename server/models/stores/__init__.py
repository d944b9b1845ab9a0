"""Models that other programs store on this machine. They are used in place; nothing is changed."""
