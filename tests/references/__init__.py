"""Second opinions: published implementations and NumPy statements that share no code with bert_pretrain."""
