"""Feature bits of the block device (VIRTIO 1.4 §5.2.3)."""

from enum import IntFlag

__all__ = ["Feature"]


class Feature(IntFlag):
    """Feature bits of block devices, as flags."""

    BARRIER = 1 << 0
    SIZE_MAX = 1 << 1
    SEG_MAX = 1 << 2
    GEOMETRY = 1 << 4
    RO = 1 << 5
    BLK_SIZE = 1 << 6
    SCSI = 1 << 7
    FLUSH = 1 << 9
    TOPOLOGY = 1 << 10
    CONFIG_WCE = 1 << 11
    MQ = 1 << 12
    DISCARD = 1 << 13
    WRITE_ZEROES = 1 << 14
    LIFETIME = 1 << 15
    SECURE_ERASE = 1 << 16
    ZONED = 1 << 17
