"""What decides a result: the identity of plugins and graders, fingerprints of runs, and
how two of them differ.
"""

from alignkit.provenance.changes import OLD, changes, differences, is_old
from alignkit.provenance.fingerprint import Fingerprint, matters, of_run
from alignkit.provenance.identity import Identity, identity
from alignkit.provenance.named import Named, named

__all__ = [
    "OLD",
    "Fingerprint",
    "Identity",
    "Named",
    "changes",
    "differences",
    "identity",
    "is_old",
    "matters",
    "named",
    "of_run",
]
