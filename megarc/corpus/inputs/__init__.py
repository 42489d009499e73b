"""From files of text to documents: which files are read, how they are cut, opened and decoded."""
