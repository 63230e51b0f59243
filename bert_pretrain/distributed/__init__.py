"""A rank and the others: collectives, heartbeat, stopping, checks that all ranks make together."""
