"""Memory that a loop frees and asks for again, kept by the process in between."""

import torch

# Of larger blocks glibc takes no note.
_LARGEST = 31 * 2**20


def keep(size: int) -> None:
    """Let the C library keep freed memory of some times this size, in bytes, instead of giving it back.

    glibc returns the top of its heap to the system when twice the largest block that was freed so far lies idle, and
    each page must then be fetched anew: 15,000 to 40,000 page faults for a product of 50 matrices of dimension 512, a
    twentieth of its time. A block of that size is therefore asked for and freed, untouched, which costs microseconds
    and no memory. Nothing happens with other C libraries, or where the environment sets the limits of this one.

    Parameters
    ----------
    size
        Of what is asked for and freed at a time; beyond 31 MiB memory is never kept.
    """
    torch.empty(min(size, _LARGEST), dtype=torch.uint8)
