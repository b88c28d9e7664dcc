"""What finished sweeps say about the claims of the papers: verdicts, figures and a page. Reads files, runs nothing."""
