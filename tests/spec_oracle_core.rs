//! Our numbers against those of the Linux headers, as the crate `virtio-bindings` carries them.

use std::mem::{offset_of, size_of};

use virtio::spec::{DeviceType, PCI_VENDOR_ID, Status, feature, packed, split};
use virtio_bindings::{virtio_config as config, virtio_ids as ids, virtio_ring as ring};

#[test]
fn device_ids_are_those_of_the_headers() {
    let pairs = [
        (DeviceType::NET, ids::VIRTIO_ID_NET),
        (DeviceType::BLOCK, ids::VIRTIO_ID_BLOCK),
        (DeviceType::CONSOLE, ids::VIRTIO_ID_CONSOLE),
        (DeviceType::ENTROPY, ids::VIRTIO_ID_RNG),
        (DeviceType::BALLOON, ids::VIRTIO_ID_BALLOON),
        (DeviceType::IO_MEMORY, ids::VIRTIO_ID_IOMEM),
        (DeviceType::RPMSG, ids::VIRTIO_ID_RPMSG),
        (DeviceType::SCSI, ids::VIRTIO_ID_SCSI),
        (DeviceType::NINE_P, ids::VIRTIO_ID_9P),
        (DeviceType::MAC80211_WLAN, ids::VIRTIO_ID_MAC80211_WLAN),
        (DeviceType::RPROC_SERIAL, ids::VIRTIO_ID_RPROC_SERIAL),
        (DeviceType::CAIF, ids::VIRTIO_ID_CAIF),
        (DeviceType::MEMORY_BALLOON, ids::VIRTIO_ID_MEMORY_BALLOON),
        (DeviceType::GPU, ids::VIRTIO_ID_GPU),
        (DeviceType::RTC, ids::VIRTIO_ID_CLOCK),
        (DeviceType::INPUT, ids::VIRTIO_ID_INPUT),
        (DeviceType::SOCKET, ids::VIRTIO_ID_VSOCK),
        (DeviceType::CRYPTO, ids::VIRTIO_ID_CRYPTO),
        (DeviceType::SIGNAL_DISTRIBUTION, ids::VIRTIO_ID_SIGNAL_DIST),
        (DeviceType::PSTORE, ids::VIRTIO_ID_PSTORE),
        (DeviceType::IOMMU, ids::VIRTIO_ID_IOMMU),
        (DeviceType::MEMORY, ids::VIRTIO_ID_MEM),
        (DeviceType::SOUND, ids::VIRTIO_ID_SOUND),
        (DeviceType::FILE_SYSTEM, ids::VIRTIO_ID_FS),
        (DeviceType::PMEM, ids::VIRTIO_ID_PMEM),
        (DeviceType::RPMB, ids::VIRTIO_ID_RPMB),
        (DeviceType::MAC80211_HWSIM, ids::VIRTIO_ID_MAC80211_HWSIM),
        (DeviceType::VIDEO_ENCODER, ids::VIRTIO_ID_VIDEO_ENCODER),
        (DeviceType::VIDEO_DECODER, ids::VIRTIO_ID_VIDEO_DECODER),
        (DeviceType::SCMI, ids::VIRTIO_ID_SCMI),
        (DeviceType::NITRO_SECURE_MODULE, ids::VIRTIO_ID_NITRO_SEC_MOD),
        (DeviceType::I2C, ids::VIRTIO_ID_I2C_ADAPTER),
        (DeviceType::WATCHDOG, ids::VIRTIO_ID_WATCHDOG),
        (DeviceType::CAN, ids::VIRTIO_ID_CAN),
        (DeviceType::PARAMETER_SERVER, ids::VIRTIO_ID_PARAM_SERV),
        (DeviceType::AUDIO_POLICY, ids::VIRTIO_ID_AUDIO_POLICY),
        (DeviceType::BLUETOOTH, ids::VIRTIO_ID_BT),
        (DeviceType::GPIO, ids::VIRTIO_ID_GPIO),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(ours.0, theirs, "{ours}");
    }
    // The headers name ids up to 41, one of which VIRTIO 1.4 does not name.
    assert_eq!(pairs.len(), DeviceType::NAMED.iter().filter(|named| named.0 <= 41).count());
    assert_eq!(DeviceType(ids::VIRTIO_ID_DMABUF).name(), None);
}

#[test]
fn transitional_pci_ids_are_those_of_the_headers() {
    let pairs = [
        (DeviceType::NET, ids::VIRTIO_TRANS_ID_NET),
        (DeviceType::BLOCK, ids::VIRTIO_TRANS_ID_BLOCK),
        (DeviceType::BALLOON, ids::VIRTIO_TRANS_ID_BALLOON),
        (DeviceType::CONSOLE, ids::VIRTIO_TRANS_ID_CONSOLE),
        (DeviceType::SCSI, ids::VIRTIO_TRANS_ID_SCSI),
        (DeviceType::ENTROPY, ids::VIRTIO_TRANS_ID_RNG),
        (DeviceType::NINE_P, ids::VIRTIO_TRANS_ID_9P),
    ];
    for (ours, theirs) in pairs {
        let pci_id = ours.transitional_pci_device_id().expect("a transitional type");
        assert_eq!(u32::from(pci_id), theirs, "{ours}");
        assert_eq!(DeviceType::from_pci_ids(PCI_VENDOR_ID, pci_id, 0), Some(ours));
    }
    let ours = DeviceType::NAMED.iter().filter(|named| named.transitional_pci_device_id().is_some());
    assert_eq!(ours.count(), pairs.len());
}

#[test]
fn status_bits_are_those_of_the_headers() {
    let pairs = [
        (Status::ACKNOWLEDGE, config::VIRTIO_CONFIG_S_ACKNOWLEDGE),
        (Status::DRIVER, config::VIRTIO_CONFIG_S_DRIVER),
        (Status::DRIVER_OK, config::VIRTIO_CONFIG_S_DRIVER_OK),
        (Status::FEATURES_OK, config::VIRTIO_CONFIG_S_FEATURES_OK),
        (Status::DEVICE_NEEDS_RESET, config::VIRTIO_CONFIG_S_NEEDS_RESET),
        (Status::FAILED, config::VIRTIO_CONFIG_S_FAILED),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(u32::from(ours.bits()), theirs, "{ours}");
    }
}

#[test]
fn reserved_feature_bits_are_those_of_the_headers() {
    let pairs = [
        (feature::NOTIFY_ON_EMPTY, config::VIRTIO_F_NOTIFY_ON_EMPTY),
        (feature::ANY_LAYOUT, config::VIRTIO_F_ANY_LAYOUT),
        (feature::INDIRECT_DESC, ring::VIRTIO_RING_F_INDIRECT_DESC),
        (feature::EVENT_IDX, ring::VIRTIO_RING_F_EVENT_IDX),
        (feature::VERSION_1, config::VIRTIO_F_VERSION_1),
        (feature::ACCESS_PLATFORM, config::VIRTIO_F_ACCESS_PLATFORM),
        (feature::ACCESS_PLATFORM, config::VIRTIO_F_IOMMU_PLATFORM),
        (feature::RING_PACKED, config::VIRTIO_F_RING_PACKED),
        (feature::IN_ORDER, config::VIRTIO_F_IN_ORDER),
        (feature::ORDER_PLATFORM, config::VIRTIO_F_ORDER_PLATFORM),
        (feature::SR_IOV, config::VIRTIO_F_SR_IOV),
        (feature::NOTIFICATION_DATA, config::VIRTIO_F_NOTIFICATION_DATA),
        (feature::NOTIF_CONFIG_DATA, config::VIRTIO_F_NOTIF_CONFIG_DATA),
        (feature::RING_RESET, config::VIRTIO_F_RING_RESET),
        (feature::ADMIN_VQ, config::VIRTIO_F_ADMIN_VQ),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(u32::from(ours), theirs);
    }
}

#[test]
fn split_ring_layout_is_that_of_the_headers() {
    assert_eq!(split::DESC_SIZE, size_of::<ring::vring_desc>());
    assert_eq!(split::DESC_ADDR, offset_of!(ring::vring_desc, addr));
    assert_eq!(split::DESC_LEN, offset_of!(ring::vring_desc, len));
    assert_eq!(split::DESC_FLAGS, offset_of!(ring::vring_desc, flags));
    assert_eq!(split::DESC_NEXT, offset_of!(ring::vring_desc, next));
    assert_eq!(split::AVAIL_FLAGS, offset_of!(ring::vring_avail, flags));
    assert_eq!(split::AVAIL_IDX, offset_of!(ring::vring_avail, idx));
    assert_eq!(split::AVAIL_RING, offset_of!(ring::vring_avail, ring));
    assert_eq!(split::USED_FLAGS, offset_of!(ring::vring_used, flags));
    assert_eq!(split::USED_IDX, offset_of!(ring::vring_used, idx));
    assert_eq!(split::USED_RING, offset_of!(ring::vring_used, ring));
    assert_eq!(split::USED_ELEM_SIZE, size_of::<ring::vring_used_elem>());
    assert_eq!(split::USED_ELEM_ID, offset_of!(ring::vring_used_elem, id));
    assert_eq!(split::USED_ELEM_LEN, offset_of!(ring::vring_used_elem, len));
    assert_eq!(split::DESC_ALIGN, ring::VRING_DESC_ALIGN_SIZE as usize);
    assert_eq!(split::AVAIL_ALIGN, ring::VRING_AVAIL_ALIGN_SIZE as usize);
    assert_eq!(split::USED_ALIGN, ring::VRING_USED_ALIGN_SIZE as usize);
}

#[test]
fn packed_ring_layout_is_that_of_the_headers() {
    assert_eq!(packed::DESC_SIZE, size_of::<ring::vring_packed_desc>());
    assert_eq!(packed::DESC_ADDR, offset_of!(ring::vring_packed_desc, addr));
    assert_eq!(packed::DESC_LEN, offset_of!(ring::vring_packed_desc, len));
    assert_eq!(packed::DESC_ID, offset_of!(ring::vring_packed_desc, id));
    assert_eq!(packed::DESC_FLAGS, offset_of!(ring::vring_packed_desc, flags));
    assert_eq!(packed::EVENT_SIZE, size_of::<ring::vring_packed_desc_event>());
    assert_eq!(packed::EVENT_DESC, offset_of!(ring::vring_packed_desc_event, off_wrap));
    assert_eq!(packed::EVENT_FLAGS, offset_of!(ring::vring_packed_desc_event, flags));
}

#[test]
fn ring_flags_are_those_of_the_headers() {
    let pairs = [
        (split::DESC_F_NEXT, ring::VRING_DESC_F_NEXT),
        (split::DESC_F_WRITE, ring::VRING_DESC_F_WRITE),
        (split::DESC_F_INDIRECT, ring::VRING_DESC_F_INDIRECT),
        (split::AVAIL_F_NO_INTERRUPT, ring::VRING_AVAIL_F_NO_INTERRUPT),
        (split::USED_F_NO_NOTIFY, ring::VRING_USED_F_NO_NOTIFY),
        (packed::DESC_F_NEXT, ring::VRING_DESC_F_NEXT),
        (packed::DESC_F_WRITE, ring::VRING_DESC_F_WRITE),
        (packed::DESC_F_INDIRECT, ring::VRING_DESC_F_INDIRECT),
        // Of these the headers give bit numbers.
        (packed::DESC_F_AVAIL, 1 << ring::VRING_PACKED_DESC_F_AVAIL),
        (packed::DESC_F_USED, 1 << ring::VRING_PACKED_DESC_F_USED),
        (packed::EVENT_DESC_WRAP, 1 << ring::VRING_PACKED_EVENT_F_WRAP_CTR),
        (packed::EVENT_FLAGS_ENABLE, ring::VRING_PACKED_EVENT_FLAG_ENABLE),
        (packed::EVENT_FLAGS_DISABLE, ring::VRING_PACKED_EVENT_FLAG_DISABLE),
        (packed::EVENT_FLAGS_DESC, ring::VRING_PACKED_EVENT_FLAG_DESC),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(u32::from(ours), theirs);
    }
}
