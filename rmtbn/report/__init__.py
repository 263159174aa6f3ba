"""Reports: page dataclasses rendered through a template into one self-contained file."""
