"""From sums of losses to one update of the weights."""
