"""Networks as plain torch modules whose layers can be walked."""
