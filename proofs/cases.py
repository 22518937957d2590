"""The experiments, in the order in which they run."""

from __future__ import annotations

from proofs import (
    descriptors,
    full,
    fuzz,
    guided,
    kills,
    load,
    memory,
    order,
    power,
    races,
    slow,
    timing,
    vanish,
)
from proofs.faults import answered_rightly
from proofs.filesystems import (
    Btrfs,
    Ext4,
    Folder,
    Fuse,
    QuotaBtrfs,
    SmallExt4,
    Tmpfs,
    Xfs,
)
from proofs.outcome import Proof

CASES = {
    "power-ext4": Proof(power.survives(Ext4), trials=300, quick=10),
    "power-xfs": Proof(power.survives(Xfs), trials=50, quick=3),
    "power-btrfs": Proof(power.survives(Btrfs), trials=50, quick=3),
    "power-overwriting": Proof(power.survives_overwriting(Ext4), trials=100, quick=5),
    "power-no-file-sync": Proof(power.tells("file"), trials=10, quick=3),
    "power-no-directory-sync": Proof(power.tells("directory"), trials=10, quick=5),
    "order-unnamed": Proof(order.in_order(Folder), trials=3, quick=1),
    "order-staged": Proof(order.in_order(Fuse), trials=3, quick=1),
    "order-no-directory-sync": Proof(order.tells, trials=1, quick=1),
    "kill-unnamed": Proof(kills.survives_every_call(Folder), trials=1000, quick=6),
    "kill-staged": Proof(kills.survives_every_call(Fuse), trials=1000, quick=6),
    "kill-under-load": Proof(kills.under_load, trials=300, quick=5),
    "faults-unnamed": Proof(answered_rightly(Folder), trials=10_000, quick=50),
    "faults-staged": Proof(answered_rightly(Fuse), trials=10_000, quick=50),
    "full-tmpfs": Proof(full.filled(Tmpfs), trials=50, quick=2),
    "full-ext4": Proof(full.filled(SmallExt4), trials=50, quick=2),
    "full-quota": Proof(full.filled(QuotaBtrfs), trials=50, quick=2),
    "races-one-wins": Proof(races.one_wins, trials=1000, quick=40),
    "races-overwrite": Proof(races.one_stays, trials=1000, quick=40),
    "races-rename": Proof(races.tells, trials=100, quick=40),
    # Nothing is quick where deadlines are waited for.
    "vanish": Proof(vanish.nothing_is_left, trials=200, quick=40),
    "vanish-kept": Proof(vanish.tells, trials=40, quick=40),
    "fuzz": Proof(fuzz.prove, trials=60, quick=5),
    "fuzz-lengths": Proof(fuzz.tells("lengths"), trials=20, quick=5),
    "fuzz-contents": Proof(fuzz.tells("contents"), trials=10, quick=5),
    "fuzz-early-ends": Proof(fuzz.tells("early ends"), trials=10, quick=5),
    "guided": Proof(guided.prove, trials=600, quick=20),
    "slow": Proof(slow.outlasts, trials=300, quick=40),
    "descriptors": Proof(descriptors.run_out, trials=10, quick=2),
    "descriptors-hook": Proof(descriptors.run_out_with_hook, trials=10, quick=2),
    "descriptors-strangers": Proof(descriptors.strangers_stay, trials=80, quick=20),
    "descriptors-flood": Proof(descriptors.flooded, trials=200, quick=20),
    "timing": Proof(timing.says_nothing, trials=20_000, quick=2_000),
    "timing-leak": Proof(timing.tells, trials=20_000, quick=5_000),
    "timing-right-token": Proof(timing.told_apart, trials=20_000, quick=20_000),
    "reloads": Proof(load.reloads, trials=500, quick=20),
    "memory": Proof(memory.large, trials=3, quick=1),
    "soak": Proof(load.soak, trials=1800, quick=20),
}
