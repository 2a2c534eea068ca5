"""Jobs: work that takes longer than a request, kept as rows, done by whoever serves."""
