"""Raw text of any form -> documents, one sentence a line: the --make_text step."""
