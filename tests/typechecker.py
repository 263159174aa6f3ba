"""The run-time type checker of the tests: beartype, with ints welcome where floats are (as in PEP 484)."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
