"""How much memory this process took."""

import sys


def peak_rss_mb(platform: str = sys.platform) -> int:
    """Largest resident size so far of this process or of any child it has waited for, MB (2**20 bytes). platform: as
    sys.platform has it; macOS counts bytes where Linux counts kilobytes."""
    import resource  # not on Windows, where adcli stops before it gets here

    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return in_megabytes(max(resource.getrusage(w).ru_maxrss for w in who), platform)


def in_megabytes(ru_maxrss: int, platform: str) -> int:
    """ru_maxrss as the platform gives it -> MB."""
    return ru_maxrss // (2**20 if platform == "darwin" else 2**10)
