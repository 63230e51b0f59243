"""The format of a Hugging Face folder: names of BERT's tensors, config.json, model.safetensors, tokenizer files."""
