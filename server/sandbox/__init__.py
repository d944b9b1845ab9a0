"""The child process with limits in which constraints are tried out."""
