"""The experiments, in the order in which they run."""

from __future__ import annotations

from proofs import power
from proofs.filesystems import Btrfs, Ext4, Xfs
from proofs.outcome import Proof

CASES = {
    "power-ext4": Proof(
        "a file answered with 200 survives a power cut",
        power.survives(Ext4),
        trials=300,
        quick=10,
    ),
    "power-xfs": Proof("the same on XFS", power.survives(Xfs), trials=50, quick=3),
    "power-btrfs": Proof(
        "the same on Btrfs", power.survives(Btrfs), trials=50, quick=3
    ),
    "power-no-file-sync": Proof(
        "the cut tells when files are not synced",
        power.tells("file"),
        trials=10,
        quick=3,
    ),
    "power-no-directory-sync": Proof(
        "the cut tells when directories are not synced",
        power.tells("directory"),
        trials=10,
        quick=3,
    ),
}
