"""What finished sweeps say about the claims of the papers: verdicts, figures and a page. Reads files; two studies
evaluate the networks that the runs kept (`lines`, `image_spectra`), and keep what they found beside the runs."""
