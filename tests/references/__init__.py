"""Reference implementations, published or written in NumPy, that share no code with bert_pretrain."""
