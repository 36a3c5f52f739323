"""Numbers of the specification by name (VIRTIO 1.4 §2.1, §5, §6)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["DeviceType", "Feature", "Status"]


class DeviceType(IntEnum):
    """Device types. Numbers that the specification does not name survive."""

    NET = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4
    BALLOON = 5
    IO_MEMORY = 6
    RPMSG = 7
    SCSI = 8
    NINE_P = 9
    MAC80211_WLAN = 10
    RPROC_SERIAL = 11
    CAIF = 12
    MEMORY_BALLOON = 13
    GPU = 16
    RTC = 17
    INPUT = 18
    SOCKET = 19
    CRYPTO = 20
    SIGNAL_DISTRIBUTION = 21
    PSTORE = 22
    IOMMU = 23
    MEMORY = 24
    SOUND = 25
    FILE_SYSTEM = 26
    PMEM = 27
    RPMB = 28
    MAC80211_HWSIM = 29
    VIDEO_ENCODER = 30
    VIDEO_DECODER = 31
    SCMI = 32
    NITRO_SECURE_MODULE = 33
    I2C = 34
    WATCHDOG = 35
    CAN = 36
    PARAMETER_SERVER = 38
    AUDIO_POLICY = 39
    BLUETOOTH = 40
    GPIO = 41
    RDMA = 42
    CAMERA = 43
    ISM = 44
    SPI = 45
    TEE = 46
    CPU_BALLOON = 47
    MEDIA = 48
    USB = 49

    @classmethod
    def _missing_(cls, value: object) -> DeviceType | None:
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            return None
        unknown = int.__new__(cls, value)
        unknown._name_ = f"TYPE_{value}"
        unknown._value_ = value
        return unknown


class Status(IntFlag):
    """Bits of the device status."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    SUSPEND = 16
    DEVICE_NEEDS_RESET = 64
    FAILED = 128


class Feature(IntFlag):
    """Feature bits that do not depend on the device type, as flags. Those of block devices: virtio.block.Feature."""

    NOTIFY_ON_EMPTY = 1 << 24
    ANY_LAYOUT = 1 << 27
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    UNUSED = 1 << 30
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35
    ORDER_PLATFORM = 1 << 36
    SR_IOV = 1 << 37
    NOTIFICATION_DATA = 1 << 38
    NOTIF_CONFIG_DATA = 1 << 39
    RING_RESET = 1 << 40
    ADMIN_VQ = 1 << 41
    SUSPEND = 1 << 43
