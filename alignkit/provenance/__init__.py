"""What decides a result: the identity of plugins and graders, fingerprints of runs, and
how two of them differ.
"""

from alignkit.provenance.changes import (
    OLD,
    changes,
    code_of,
    differences,
    is_old,
    measured_by,
)
from alignkit.provenance.fingerprint import Fingerprint, of_run
from alignkit.provenance.identity import Identity, identity, identity_of_function
from alignkit.provenance.named import Named, named

__all__ = [
    "OLD",
    "Fingerprint",
    "Identity",
    "Named",
    "changes",
    "code_of",
    "differences",
    "identity",
    "identity_of_function",
    "is_old",
    "measured_by",
    "named",
    "of_run",
]
