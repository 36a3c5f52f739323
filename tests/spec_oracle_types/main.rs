//! The tables and layouts of the device types against the Linux headers, as `virtio-bindings` has them.

use core::mem::offset_of;

use virtio::spec::ByteOrder::Little;
use virtio::spec::layout::DeviceSpec;
use virtio::spec::{DeviceType, device};
use virtio_bindings::{virtio_blk, virtio_gpu, virtio_ids, virtio_input, virtio_net, virtio_scsi};

/// Compares numbers: ours against the header's.
macro_rules! same {
    ($($ours:expr => $theirs:expr;)*) => {$(
        assert_eq!(u64::from($ours), u64::from($theirs), "{}", stringify!($ours));
    )*};
}

/// Compares offset and length of the fields of a configuration space.
macro_rules! same_config {
    ($spec:expr, $theirs:ty, $($name:literal => $($field:ident).+;)*) => {$(
        let field = $spec.config.iter().find(|field| field.name == $name).expect($name);
        assert_eq!(usize::from(field.offset), offset_of!($theirs, $($field).+), "{}", $name);
        let length = length_of(|theirs: &$theirs| theirs.$($field).+);
        assert_eq!(field.end() as usize - usize::from(field.offset), length, "{}", $name);
    )*};
}

/// Compares where a field lies in an encoded structure: ours has ones in that field only.
macro_rules! same_field {
    ($($ours:ident { $our_field:ident: $ones:expr } => $theirs:ty { $($field:ident).+ };)*) => {$(
        let bytes = $ours { $our_field: $ones, ..$ours::default() }.encode(Little);
        let start = bytes.iter().position(|byte| *byte == 0xff).expect("ones somewhere");
        let length = bytes.iter().filter(|byte| **byte == 0xff).count();
        let name = stringify!($our_field);
        assert_eq!(start, offset_of!($theirs, $($field).+), "{name}");
        assert_eq!(length, length_of(|theirs: &$theirs| theirs.$($field).+), "{name}");
        assert!(bytes[start..start + length].iter().all(|byte| *byte == 0xff), "{name}");
    )*};
}

// After the macros, which it uses.
mod net;

fn length_of<T, F>(_: fn(&T) -> F) -> usize {
    size_of::<F>()
}

/// The bits of the header are in the table under the same name and number.
fn same_features(spec: &DeviceSpec, theirs: &[(&str, u32)]) {
    for (name, bit) in theirs {
        let entry = spec.features.iter().find(|entry| entry.name == *name).expect(name);
        assert_eq!(u32::from(entry.bit), *bit, "{name}");
    }
}

#[test]
fn device_ids_are_those_of_the_headers() {
    let same_id = |spec: &DeviceSpec, id: u32| assert_eq!(spec.device_type, DeviceType(id));
    same_id(&device::net::SPEC, virtio_ids::VIRTIO_ID_NET);
    same_id(&device::block::SPEC, virtio_ids::VIRTIO_ID_BLOCK);
    same_id(&device::console::SPEC, virtio_ids::VIRTIO_ID_CONSOLE);
    same_id(&device::entropy::SPEC, virtio_ids::VIRTIO_ID_RNG);
    same_id(&device::balloon::SPEC, virtio_ids::VIRTIO_ID_BALLOON);
    same_id(&device::scsi::SPEC, virtio_ids::VIRTIO_ID_SCSI);
    same_id(&device::gpu::SPEC, virtio_ids::VIRTIO_ID_GPU);
    same_id(&device::rtc::SPEC, virtio_ids::VIRTIO_ID_CLOCK);
    same_id(&device::input::SPEC, virtio_ids::VIRTIO_ID_INPUT);
    same_id(&device::vsock::SPEC, virtio_ids::VIRTIO_ID_VSOCK);
    same_id(&device::crypto::SPEC, virtio_ids::VIRTIO_ID_CRYPTO);
    same_id(&device::iommu::SPEC, virtio_ids::VIRTIO_ID_IOMMU);
    same_id(&device::mem::SPEC, virtio_ids::VIRTIO_ID_MEM);
    same_id(&device::sound::SPEC, virtio_ids::VIRTIO_ID_SOUND);
    same_id(&device::fs::SPEC, virtio_ids::VIRTIO_ID_FS);
    same_id(&device::pmem::SPEC, virtio_ids::VIRTIO_ID_PMEM);
    same_id(&device::rpmb::SPEC, virtio_ids::VIRTIO_ID_RPMB);
    same_id(&device::scmi::SPEC, virtio_ids::VIRTIO_ID_SCMI);
    same_id(&device::i2c::SPEC, virtio_ids::VIRTIO_ID_I2C_ADAPTER);
    same_id(&device::can::SPEC, virtio_ids::VIRTIO_ID_CAN);
    same_id(&device::gpio::SPEC, virtio_ids::VIRTIO_ID_GPIO);
}

#[test]
fn block_features_are_those_of_the_headers() {
    same_features(
        &device::block::SPEC,
        &[
            ("SIZE_MAX", virtio_blk::VIRTIO_BLK_F_SIZE_MAX),
            ("SEG_MAX", virtio_blk::VIRTIO_BLK_F_SEG_MAX),
            ("GEOMETRY", virtio_blk::VIRTIO_BLK_F_GEOMETRY),
            ("RO", virtio_blk::VIRTIO_BLK_F_RO),
            ("BLK_SIZE", virtio_blk::VIRTIO_BLK_F_BLK_SIZE),
            ("TOPOLOGY", virtio_blk::VIRTIO_BLK_F_TOPOLOGY),
            ("MQ", virtio_blk::VIRTIO_BLK_F_MQ),
            ("DISCARD", virtio_blk::VIRTIO_BLK_F_DISCARD),
            ("WRITE_ZEROES", virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES),
            ("SECURE_ERASE", virtio_blk::VIRTIO_BLK_F_SECURE_ERASE),
            ("ZONED", virtio_blk::VIRTIO_BLK_F_ZONED),
            ("BARRIER", virtio_blk::VIRTIO_BLK_F_BARRIER),
            ("SCSI", virtio_blk::VIRTIO_BLK_F_SCSI),
            ("FLUSH", virtio_blk::VIRTIO_BLK_F_FLUSH),
            ("CONFIG_WCE", virtio_blk::VIRTIO_BLK_F_CONFIG_WCE),
        ],
    );
    same! {
        device::block::feature::FLUSH => virtio_blk::VIRTIO_BLK_F_WCE;
    }
}

#[test]
fn block_configuration_space_is_that_of_the_headers() {
    use virtio_blk::virtio_blk_config;

    same_config! { device::block::SPEC, virtio_blk_config,
        "capacity" => capacity;
        "size_max" => size_max;
        "seg_max" => seg_max;
        "geometry.cylinders" => geometry.cylinders;
        "geometry.heads" => geometry.heads;
        "geometry.sectors" => geometry.sectors;
        "blk_size" => blk_size;
        "topology.physical_block_exp" => physical_block_exp;
        "topology.alignment_offset" => alignment_offset;
        "topology.min_io_size" => min_io_size;
        "topology.opt_io_size" => opt_io_size;
        "writeback" => wce;
        "num_queues" => num_queues;
        "max_discard_sectors" => max_discard_sectors;
        "max_discard_seg" => max_discard_seg;
        "discard_sector_alignment" => discard_sector_alignment;
        "max_write_zeroes_sectors" => max_write_zeroes_sectors;
        "max_write_zeroes_seg" => max_write_zeroes_seg;
        "write_zeroes_may_unmap" => write_zeroes_may_unmap;
        "max_secure_erase_sectors" => max_secure_erase_sectors;
        "max_secure_erase_seg" => max_secure_erase_seg;
        "secure_erase_sector_alignment" => secure_erase_sector_alignment;
        "zoned.zone_sectors" => zoned.zone_sectors;
        "zoned.max_open_zones" => zoned.max_open_zones;
        "zoned.max_active_zones" => zoned.max_active_zones;
        "zoned.max_append_sectors" => zoned.max_append_sectors;
        "zoned.write_granularity" => zoned.write_granularity;
        "zoned.model" => zoned.model;
    }
    assert_eq!(device::block::SPEC.config.len(), 28);
}

#[test]
fn block_codes_are_those_of_the_headers() {
    use device::block::Model;
    use device::block::request::{ID_SIZE, LEGACY_BARRIER, RequestType, SEGMENT_UNMAP, Status};
    use device::block::zone::{ZoneState, ZoneType};

    same! {
        RequestType::IN.0 => virtio_blk::VIRTIO_BLK_T_IN;
        RequestType::OUT.0 => virtio_blk::VIRTIO_BLK_T_OUT;
        RequestType::SCSI_CMD.0 => virtio_blk::VIRTIO_BLK_T_SCSI_CMD;
        RequestType::FLUSH.0 => virtio_blk::VIRTIO_BLK_T_FLUSH;
        RequestType::GET_ID.0 => virtio_blk::VIRTIO_BLK_T_GET_ID;
        RequestType::DISCARD.0 => virtio_blk::VIRTIO_BLK_T_DISCARD;
        RequestType::WRITE_ZEROES.0 => virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;
        RequestType::SECURE_ERASE.0 => virtio_blk::VIRTIO_BLK_T_SECURE_ERASE;
        RequestType::ZONE_APPEND.0 => virtio_blk::VIRTIO_BLK_T_ZONE_APPEND;
        RequestType::ZONE_REPORT.0 => virtio_blk::VIRTIO_BLK_T_ZONE_REPORT;
        RequestType::ZONE_OPEN.0 => virtio_blk::VIRTIO_BLK_T_ZONE_OPEN;
        RequestType::ZONE_CLOSE.0 => virtio_blk::VIRTIO_BLK_T_ZONE_CLOSE;
        RequestType::ZONE_FINISH.0 => virtio_blk::VIRTIO_BLK_T_ZONE_FINISH;
        RequestType::ZONE_RESET.0 => virtio_blk::VIRTIO_BLK_T_ZONE_RESET;
        RequestType::ZONE_RESET_ALL.0 => virtio_blk::VIRTIO_BLK_T_ZONE_RESET_ALL;
        Status::OK.0 => virtio_blk::VIRTIO_BLK_S_OK;
        Status::IOERR.0 => virtio_blk::VIRTIO_BLK_S_IOERR;
        Status::UNSUPP.0 => virtio_blk::VIRTIO_BLK_S_UNSUPP;
        Status::ZONE_INVALID_CMD.0 => virtio_blk::VIRTIO_BLK_S_ZONE_INVALID_CMD;
        Status::ZONE_UNALIGNED_WP.0 => virtio_blk::VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
        Status::ZONE_OPEN_RESOURCE.0 => virtio_blk::VIRTIO_BLK_S_ZONE_OPEN_RESOURCE;
        Status::ZONE_ACTIVE_RESOURCE.0 => virtio_blk::VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE;
        ZoneType::CONV.0 => virtio_blk::VIRTIO_BLK_ZT_CONV;
        ZoneType::SWR.0 => virtio_blk::VIRTIO_BLK_ZT_SWR;
        ZoneType::SWP.0 => virtio_blk::VIRTIO_BLK_ZT_SWP;
        ZoneState::NOT_WP.0 => virtio_blk::VIRTIO_BLK_ZS_NOT_WP;
        ZoneState::EMPTY.0 => virtio_blk::VIRTIO_BLK_ZS_EMPTY;
        ZoneState::IOPEN.0 => virtio_blk::VIRTIO_BLK_ZS_IOPEN;
        ZoneState::EOPEN.0 => virtio_blk::VIRTIO_BLK_ZS_EOPEN;
        ZoneState::CLOSED.0 => virtio_blk::VIRTIO_BLK_ZS_CLOSED;
        ZoneState::RDONLY.0 => virtio_blk::VIRTIO_BLK_ZS_RDONLY;
        ZoneState::FULL.0 => virtio_blk::VIRTIO_BLK_ZS_FULL;
        ZoneState::OFFLINE.0 => virtio_blk::VIRTIO_BLK_ZS_OFFLINE;
        Model::NONE.0 => virtio_blk::VIRTIO_BLK_Z_NONE;
        Model::HM.0 => virtio_blk::VIRTIO_BLK_Z_HM;
        Model::HA.0 => virtio_blk::VIRTIO_BLK_Z_HA;
        ID_SIZE as u32 => virtio_blk::VIRTIO_BLK_ID_BYTES;
        SEGMENT_UNMAP => virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        LEGACY_BARRIER => virtio_blk::VIRTIO_BLK_T_BARRIER;
    }
}

#[test]
fn block_layouts_are_those_of_the_headers() {
    use device::block::request::{Header, RequestType, Segment};
    use device::block::zone::{Descriptor, ReportHeader, ZoneState, ZoneType};
    use virtio_blk::{
        virtio_blk_discard_write_zeroes, virtio_blk_outhdr, virtio_blk_zone_descriptor,
        virtio_blk_zone_report,
    };

    assert_eq!(Header::SIZE, size_of::<virtio_blk_outhdr>());
    assert_eq!(Segment::SIZE, size_of::<virtio_blk_discard_write_zeroes>());
    assert_eq!(Descriptor::SIZE, size_of::<virtio_blk_zone_descriptor>());
    assert_eq!(ReportHeader::SIZE, offset_of!(virtio_blk_zone_report, zones));
    same_field! {
        Header { request_type: RequestType(!0) } => virtio_blk_outhdr { type_ };
        Header { reserved: !0 } => virtio_blk_outhdr { ioprio };
        Header { sector: !0 } => virtio_blk_outhdr { sector };
        Segment { sector: !0 } => virtio_blk_discard_write_zeroes { sector };
        Segment { num_sectors: !0 } => virtio_blk_discard_write_zeroes { num_sectors };
        Segment { flags: !0 } => virtio_blk_discard_write_zeroes { flags };
        Descriptor { z_cap: !0 } => virtio_blk_zone_descriptor { z_cap };
        Descriptor { z_start: !0 } => virtio_blk_zone_descriptor { z_start };
        Descriptor { z_wp: !0 } => virtio_blk_zone_descriptor { z_wp };
        Descriptor { z_type: ZoneType(!0) } => virtio_blk_zone_descriptor { z_type };
        Descriptor { z_state: ZoneState(!0) } => virtio_blk_zone_descriptor { z_state };
        ReportHeader { nr_zones: !0 } => virtio_blk_zone_report { nr_zones };
    }
}

#[test]
fn scsi_features_are_those_of_the_headers() {
    same_features(
        &device::scsi::SPEC,
        &[
            ("INOUT", virtio_scsi::VIRTIO_SCSI_F_INOUT),
            ("HOTPLUG", virtio_scsi::VIRTIO_SCSI_F_HOTPLUG),
            ("CHANGE", virtio_scsi::VIRTIO_SCSI_F_CHANGE),
            ("T10_PI", virtio_scsi::VIRTIO_SCSI_F_T10_PI),
        ],
    );
}

#[test]
fn scsi_configuration_space_is_that_of_the_headers() {
    use virtio_scsi::virtio_scsi_config;

    same_config! { device::scsi::SPEC, virtio_scsi_config,
        "num_queues" => num_queues;
        "seg_max" => seg_max;
        "max_sectors" => max_sectors;
        "cmd_per_lun" => cmd_per_lun;
        "event_info_size" => event_info_size;
        "sense_size" => sense_size;
        "cdb_size" => cdb_size;
        "max_channel" => max_channel;
        "max_target" => max_target;
        "max_lun" => max_lun;
    }
    assert_eq!(device::scsi::SPEC.config.len(), 10);
    same! {
        device::scsi::DEFAULT_SENSE_SIZE => virtio_scsi::VIRTIO_SCSI_SENSE_DEFAULT_SIZE;
        device::scsi::DEFAULT_CDB_SIZE => virtio_scsi::VIRTIO_SCSI_CDB_DEFAULT_SIZE;
    }
}

#[test]
fn scsi_codes_are_those_of_the_headers() {
    use device::scsi::control::{ControlType, TaskFunction};
    use device::scsi::event::{EVENTS_MISSED, EventType, ResetReason};
    use device::scsi::request::{ResponseCode, TaskAttribute};

    same! {
        ResponseCode::OK.0 => virtio_scsi::VIRTIO_SCSI_S_OK;
        ResponseCode::OVERRUN.0 => virtio_scsi::VIRTIO_SCSI_S_OVERRUN;
        ResponseCode::ABORTED.0 => virtio_scsi::VIRTIO_SCSI_S_ABORTED;
        ResponseCode::BAD_TARGET.0 => virtio_scsi::VIRTIO_SCSI_S_BAD_TARGET;
        ResponseCode::RESET.0 => virtio_scsi::VIRTIO_SCSI_S_RESET;
        ResponseCode::BUSY.0 => virtio_scsi::VIRTIO_SCSI_S_BUSY;
        ResponseCode::TRANSPORT_FAILURE.0 => virtio_scsi::VIRTIO_SCSI_S_TRANSPORT_FAILURE;
        ResponseCode::TARGET_FAILURE.0 => virtio_scsi::VIRTIO_SCSI_S_TARGET_FAILURE;
        ResponseCode::NEXUS_FAILURE.0 => virtio_scsi::VIRTIO_SCSI_S_NEXUS_FAILURE;
        ResponseCode::FAILURE.0 => virtio_scsi::VIRTIO_SCSI_S_FAILURE;
        ResponseCode::FUNCTION_SUCCEEDED.0 => virtio_scsi::VIRTIO_SCSI_S_FUNCTION_SUCCEEDED;
        ResponseCode::FUNCTION_REJECTED.0 => virtio_scsi::VIRTIO_SCSI_S_FUNCTION_REJECTED;
        ResponseCode::INCORRECT_LUN.0 => virtio_scsi::VIRTIO_SCSI_S_INCORRECT_LUN;
        TaskAttribute::SIMPLE.0 => virtio_scsi::VIRTIO_SCSI_S_SIMPLE;
        TaskAttribute::ORDERED.0 => virtio_scsi::VIRTIO_SCSI_S_ORDERED;
        TaskAttribute::HEAD.0 => virtio_scsi::VIRTIO_SCSI_S_HEAD;
        TaskAttribute::ACA.0 => virtio_scsi::VIRTIO_SCSI_S_ACA;
        ControlType::TMF.0 => virtio_scsi::VIRTIO_SCSI_T_TMF;
        ControlType::AN_QUERY.0 => virtio_scsi::VIRTIO_SCSI_T_AN_QUERY;
        ControlType::AN_SUBSCRIBE.0 => virtio_scsi::VIRTIO_SCSI_T_AN_SUBSCRIBE;
        TaskFunction::ABORT_TASK.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_ABORT_TASK;
        TaskFunction::ABORT_TASK_SET.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_ABORT_TASK_SET;
        TaskFunction::CLEAR_ACA.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_CLEAR_ACA;
        TaskFunction::CLEAR_TASK_SET.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET;
        TaskFunction::I_T_NEXUS_RESET.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET;
        TaskFunction::LOGICAL_UNIT_RESET.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET;
        TaskFunction::QUERY_TASK.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_QUERY_TASK;
        TaskFunction::QUERY_TASK_SET.0 => virtio_scsi::VIRTIO_SCSI_T_TMF_QUERY_TASK_SET;
        EVENTS_MISSED => virtio_scsi::VIRTIO_SCSI_T_EVENTS_MISSED;
        EventType::NO_EVENT.0 => virtio_scsi::VIRTIO_SCSI_T_NO_EVENT;
        EventType::TRANSPORT_RESET.0 => virtio_scsi::VIRTIO_SCSI_T_TRANSPORT_RESET;
        EventType::ASYNC_NOTIFY.0 => virtio_scsi::VIRTIO_SCSI_T_ASYNC_NOTIFY;
        EventType::PARAM_CHANGE.0 => virtio_scsi::VIRTIO_SCSI_T_PARAM_CHANGE;
        ResetReason::HARD.0 => virtio_scsi::VIRTIO_SCSI_EVT_RESET_HARD;
        ResetReason::RESCAN.0 => virtio_scsi::VIRTIO_SCSI_EVT_RESET_RESCAN;
        ResetReason::REMOVED.0 => virtio_scsi::VIRTIO_SCSI_EVT_RESET_REMOVED;
    }
}

#[test]
fn scsi_layouts_are_those_of_the_headers() {
    use device::scsi::control::{
        AsyncNotification, AsyncNotificationResponse, ControlType, TaskFunction, TaskManagement,
    };
    use device::scsi::event::{Event, EventType};
    use device::scsi::request::{Header, Response, ResponseCode, TaskAttribute};
    use virtio_scsi::*;

    assert_eq!(Header::SIZE, offset_of!(virtio_scsi_cmd_req, cdb));
    assert_eq!(Response::SIZE, offset_of!(virtio_scsi_cmd_resp, sense));
    assert_eq!(TaskManagement::SIZE, size_of::<virtio_scsi_ctrl_tmf_req>());
    assert_eq!(AsyncNotification::SIZE, size_of::<virtio_scsi_ctrl_an_req>());
    assert_eq!(AsyncNotificationResponse::SIZE, size_of::<virtio_scsi_ctrl_an_resp>());
    assert_eq!(Event::SIZE, size_of::<virtio_scsi_event>());
    same_field! {
        Header { lun: [!0; 8] } => virtio_scsi_cmd_req { lun };
        Header { id: !0 } => virtio_scsi_cmd_req { tag };
        Header { task_attr: TaskAttribute(!0) } => virtio_scsi_cmd_req { task_attr };
        Header { prio: !0 } => virtio_scsi_cmd_req { prio };
        Header { crn: !0 } => virtio_scsi_cmd_req { crn };
        Response { sense_len: !0 } => virtio_scsi_cmd_resp { sense_len };
        Response { residual: !0 } => virtio_scsi_cmd_resp { resid };
        Response { status_qualifier: !0 } => virtio_scsi_cmd_resp { status_qualifier };
        Response { status: !0 } => virtio_scsi_cmd_resp { status };
        Response { response: ResponseCode(!0) } => virtio_scsi_cmd_resp { response };
        TaskManagement { control_type: ControlType(!0) } => virtio_scsi_ctrl_tmf_req { type_ };
        TaskManagement { subtype: TaskFunction(!0) } => virtio_scsi_ctrl_tmf_req { subtype };
        TaskManagement { lun: [!0; 8] } => virtio_scsi_ctrl_tmf_req { lun };
        TaskManagement { id: !0 } => virtio_scsi_ctrl_tmf_req { tag };
        AsyncNotification { control_type: ControlType(!0) } => virtio_scsi_ctrl_an_req { type_ };
        AsyncNotification { lun: [!0; 8] } => virtio_scsi_ctrl_an_req { lun };
        AsyncNotification { event_requested: !0 } => virtio_scsi_ctrl_an_req { event_requested };
        AsyncNotificationResponse { event_actual: !0 } => virtio_scsi_ctrl_an_resp { event_actual };
        AsyncNotificationResponse { response: ResponseCode(!0) } => virtio_scsi_ctrl_an_resp { response };
        Event { event: EventType(!0) } => virtio_scsi_event { event };
        Event { lun: [!0; 8] } => virtio_scsi_event { lun };
        Event { reason: !0 } => virtio_scsi_event { reason };
    }
}

#[test]
fn gpu_tables_are_those_of_the_headers() {
    use virtio_gpu::virtio_gpu_config;

    same_features(
        &device::gpu::SPEC,
        &[
            ("VIRGL", virtio_gpu::VIRTIO_GPU_F_VIRGL),
            ("EDID", virtio_gpu::VIRTIO_GPU_F_EDID),
            ("RESOURCE_UUID", virtio_gpu::VIRTIO_GPU_F_RESOURCE_UUID),
            ("RESOURCE_BLOB", virtio_gpu::VIRTIO_GPU_F_RESOURCE_BLOB),
            ("CONTEXT_INIT", virtio_gpu::VIRTIO_GPU_F_CONTEXT_INIT),
        ],
    );
    same_config! { device::gpu::SPEC, virtio_gpu_config,
        "events_read" => events_read;
        "events_clear" => events_clear;
        "num_scanouts" => num_scanouts;
        "num_capsets" => num_capsets;
    }
    // The header lacks the newest field.
    assert_eq!(device::gpu::SPEC.config.len(), 5);
    same! {
        device::gpu::EVENT_DISPLAY => virtio_gpu::VIRTIO_GPU_EVENT_DISPLAY;
    }
}

#[test]
fn input_tables_and_layouts_are_those_of_the_headers() {
    use device::input::{AbsInfo, DevIds, Event, SPEC, Select};
    use virtio_input::*;

    same_config! { SPEC, virtio_input_config,
        "select" => select;
        "subsel" => subsel;
        "size" => size;
    }
    // The union has no length of its own to compare but that of the whole.
    let answer = SPEC.config.last().expect("u");
    assert_eq!(usize::from(answer.offset), offset_of!(virtio_input_config, u));
    assert_eq!(answer.end() as usize, size_of::<virtio_input_config>());
    same! {
        Select::UNSET.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_UNSET;
        Select::ID_NAME.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_ID_NAME;
        Select::ID_SERIAL.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_ID_SERIAL;
        Select::ID_DEVIDS.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_ID_DEVIDS;
        Select::PROP_BITS.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_PROP_BITS;
        Select::EV_BITS.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_EV_BITS;
        Select::ABS_INFO.0 => virtio_input_config_select_VIRTIO_INPUT_CFG_ABS_INFO;
    }
    assert_eq!(AbsInfo::SIZE, size_of::<virtio_input_absinfo>());
    assert_eq!(DevIds::SIZE, size_of::<virtio_input_devids>());
    assert_eq!(Event::SIZE, size_of::<virtio_input_event>());
    same_field! {
        AbsInfo { min: !0 } => virtio_input_absinfo { min };
        AbsInfo { max: !0 } => virtio_input_absinfo { max };
        AbsInfo { fuzz: !0 } => virtio_input_absinfo { fuzz };
        AbsInfo { flat: !0 } => virtio_input_absinfo { flat };
        AbsInfo { res: !0 } => virtio_input_absinfo { res };
        DevIds { bustype: !0 } => virtio_input_devids { bustype };
        DevIds { vendor: !0 } => virtio_input_devids { vendor };
        DevIds { product: !0 } => virtio_input_devids { product };
        DevIds { version: !0 } => virtio_input_devids { version };
        Event { event_type: !0 } => virtio_input_event { type_ };
        Event { code: !0 } => virtio_input_event { code };
        Event { value: !0 } => virtio_input_event { value };
    }
}
