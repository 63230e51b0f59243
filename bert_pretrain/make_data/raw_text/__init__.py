"""Raw text, as people have it, -> documents of sentences: --make_text."""
