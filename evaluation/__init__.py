"""Quality metrics of single chunks and of whole videos."""
