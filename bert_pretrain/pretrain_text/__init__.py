"""From a folder of text to a model in one command, what scripts/pretrain_text.sh runs; the choice of a recipe."""
