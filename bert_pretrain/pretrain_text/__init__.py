"""The steps of scripts/pretrain_text.sh between its commands: from a folder of text to a model."""
