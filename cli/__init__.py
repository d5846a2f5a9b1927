"""The command line: click commands, rendering, and the daemon's composition root."""
