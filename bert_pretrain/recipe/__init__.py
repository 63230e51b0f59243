"""How large a model, how long, with which batch and rate: arithmetic from the size of the text and of the machine."""
