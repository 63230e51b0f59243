"""From a gradient to an update of the weights: schedule, loss scale, LAMB and AdamW."""
