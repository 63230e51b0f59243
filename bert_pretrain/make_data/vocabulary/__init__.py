"""Text -> a WordPiece vocabulary: the --train_vocab step."""
