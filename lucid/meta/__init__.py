"""What a filespace is: its ops folded into a state, kept on disk, committed through the log."""
