"""The parent of the ranks: starts them, restarts them on the hosts that answer."""
