"""From documents to a corpus: a job of pieces shared out over workers, shards, their merge."""
