"""Two-dimensional paging: EPT and NPT."""
