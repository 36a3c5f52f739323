//! Network devices.

use super::*;

#[test]
fn net_features_are_those_of_the_headers() {
    same_features(
        &device::net::SPEC,
        &[
            ("CSUM", virtio_net::VIRTIO_NET_F_CSUM),
            ("GUEST_CSUM", virtio_net::VIRTIO_NET_F_GUEST_CSUM),
            ("CTRL_GUEST_OFFLOADS", virtio_net::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS),
            ("MTU", virtio_net::VIRTIO_NET_F_MTU),
            ("MAC", virtio_net::VIRTIO_NET_F_MAC),
            ("GUEST_TSO4", virtio_net::VIRTIO_NET_F_GUEST_TSO4),
            ("GUEST_TSO6", virtio_net::VIRTIO_NET_F_GUEST_TSO6),
            ("GUEST_ECN", virtio_net::VIRTIO_NET_F_GUEST_ECN),
            ("GUEST_UFO", virtio_net::VIRTIO_NET_F_GUEST_UFO),
            ("HOST_TSO4", virtio_net::VIRTIO_NET_F_HOST_TSO4),
            ("HOST_TSO6", virtio_net::VIRTIO_NET_F_HOST_TSO6),
            ("HOST_ECN", virtio_net::VIRTIO_NET_F_HOST_ECN),
            ("HOST_UFO", virtio_net::VIRTIO_NET_F_HOST_UFO),
            ("MRG_RXBUF", virtio_net::VIRTIO_NET_F_MRG_RXBUF),
            ("STATUS", virtio_net::VIRTIO_NET_F_STATUS),
            ("CTRL_VQ", virtio_net::VIRTIO_NET_F_CTRL_VQ),
            ("CTRL_RX", virtio_net::VIRTIO_NET_F_CTRL_RX),
            ("CTRL_VLAN", virtio_net::VIRTIO_NET_F_CTRL_VLAN),
            ("CTRL_RX_EXTRA", virtio_net::VIRTIO_NET_F_CTRL_RX_EXTRA),
            ("GUEST_ANNOUNCE", virtio_net::VIRTIO_NET_F_GUEST_ANNOUNCE),
            ("MQ", virtio_net::VIRTIO_NET_F_MQ),
            ("CTRL_MAC_ADDR", virtio_net::VIRTIO_NET_F_CTRL_MAC_ADDR),
            ("DEVICE_STATS", virtio_net::VIRTIO_NET_F_DEVICE_STATS),
            ("VQ_NOTF_COAL", virtio_net::VIRTIO_NET_F_VQ_NOTF_COAL),
            ("NOTF_COAL", virtio_net::VIRTIO_NET_F_NOTF_COAL),
            ("GUEST_USO4", virtio_net::VIRTIO_NET_F_GUEST_USO4),
            ("GUEST_USO6", virtio_net::VIRTIO_NET_F_GUEST_USO6),
            ("HOST_USO", virtio_net::VIRTIO_NET_F_HOST_USO),
            ("HASH_REPORT", virtio_net::VIRTIO_NET_F_HASH_REPORT),
            ("GUEST_HDRLEN", virtio_net::VIRTIO_NET_F_GUEST_HDRLEN),
            ("RSS", virtio_net::VIRTIO_NET_F_RSS),
            ("RSC_EXT", virtio_net::VIRTIO_NET_F_RSC_EXT),
            ("STANDBY", virtio_net::VIRTIO_NET_F_STANDBY),
            ("SPEED_DUPLEX", virtio_net::VIRTIO_NET_F_SPEED_DUPLEX),
            ("GSO", virtio_net::VIRTIO_NET_F_GSO),
        ],
    );
}

#[test]
fn net_configuration_space_is_that_of_the_headers() {
    use virtio_net::virtio_net_config;

    same_config! { device::net::SPEC, virtio_net_config,
        "mac" => mac;
        "status" => status;
        "max_virtqueue_pairs" => max_virtqueue_pairs;
        "mtu" => mtu;
        "speed" => speed;
        "duplex" => duplex;
        "rss_max_key_size" => rss_max_key_size;
        "rss_max_indirection_table_length" => rss_max_indirection_table_length;
        "supported_hash_types" => supported_hash_types;
    }
    // The header lacks the newest field.
    assert_eq!(device::net::SPEC.config.len(), 10);
}

#[test]
fn net_header_codes_are_those_of_the_headers() {
    use device::net::hash::hash_type;
    use device::net::header::{GsoType, HashReport, flags};
    use device::net::status;

    same! {
        flags::NEEDS_CSUM => virtio_net::VIRTIO_NET_HDR_F_NEEDS_CSUM;
        flags::DATA_VALID => virtio_net::VIRTIO_NET_HDR_F_DATA_VALID;
        flags::RSC_INFO => virtio_net::VIRTIO_NET_HDR_F_RSC_INFO;
        GsoType::NONE.0 => virtio_net::VIRTIO_NET_HDR_GSO_NONE;
        GsoType::TCPV4.0 => virtio_net::VIRTIO_NET_HDR_GSO_TCPV4;
        GsoType::UDP.0 => virtio_net::VIRTIO_NET_HDR_GSO_UDP;
        GsoType::TCPV6.0 => virtio_net::VIRTIO_NET_HDR_GSO_TCPV6;
        GsoType::UDP_L4.0 => virtio_net::VIRTIO_NET_HDR_GSO_UDP_L4;
        GsoType::ECN => virtio_net::VIRTIO_NET_HDR_GSO_ECN;
        HashReport::NONE.0 => virtio_net::VIRTIO_NET_HASH_REPORT_NONE;
        HashReport::IPV4.0 => virtio_net::VIRTIO_NET_HASH_REPORT_IPv4;
        HashReport::TCPV4.0 => virtio_net::VIRTIO_NET_HASH_REPORT_TCPv4;
        HashReport::UDPV4.0 => virtio_net::VIRTIO_NET_HASH_REPORT_UDPv4;
        HashReport::IPV6.0 => virtio_net::VIRTIO_NET_HASH_REPORT_IPv6;
        HashReport::TCPV6.0 => virtio_net::VIRTIO_NET_HASH_REPORT_TCPv6;
        HashReport::UDPV6.0 => virtio_net::VIRTIO_NET_HASH_REPORT_UDPv6;
        HashReport::IPV6_EX.0 => virtio_net::VIRTIO_NET_HASH_REPORT_IPv6_EX;
        HashReport::TCPV6_EX.0 => virtio_net::VIRTIO_NET_HASH_REPORT_TCPv6_EX;
        HashReport::UDPV6_EX.0 => virtio_net::VIRTIO_NET_HASH_REPORT_UDPv6_EX;
        hash_type::IPV4 => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_IPv4;
        hash_type::TCPV4 => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_TCPv4;
        hash_type::UDPV4 => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_UDPv4;
        hash_type::IPV6 => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_IPv6;
        hash_type::TCPV6 => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_TCPv6;
        hash_type::UDPV6 => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_UDPv6;
        hash_type::IP_EX => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_IP_EX;
        hash_type::TCP_EX => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_TCP_EX;
        hash_type::UDP_EX => virtio_net::VIRTIO_NET_RSS_HASH_TYPE_UDP_EX;
        status::LINK_UP => virtio_net::VIRTIO_NET_S_LINK_UP;
        status::ANNOUNCE => virtio_net::VIRTIO_NET_S_ANNOUNCE;
    }
}

#[test]
fn net_control_codes_are_those_of_the_headers() {
    use device::net::control::{Ack, Class, announce, coalescing, mac, mq, offloads, rx, stats, vlan};

    same! {
        Ack::OK.0 => virtio_net::VIRTIO_NET_OK;
        Ack::ERR.0 => virtio_net::VIRTIO_NET_ERR;
        Class::RX.0 => virtio_net::VIRTIO_NET_CTRL_RX;
        Class::MAC.0 => virtio_net::VIRTIO_NET_CTRL_MAC;
        Class::VLAN.0 => virtio_net::VIRTIO_NET_CTRL_VLAN;
        Class::ANNOUNCE.0 => virtio_net::VIRTIO_NET_CTRL_ANNOUNCE;
        Class::MQ.0 => virtio_net::VIRTIO_NET_CTRL_MQ;
        Class::GUEST_OFFLOADS.0 => virtio_net::VIRTIO_NET_CTRL_GUEST_OFFLOADS;
        Class::NOTF_COAL.0 => virtio_net::VIRTIO_NET_CTRL_NOTF_COAL;
        Class::STATS.0 => virtio_net::VIRTIO_NET_CTRL_STATS;
        rx::PROMISC => virtio_net::VIRTIO_NET_CTRL_RX_PROMISC;
        rx::ALLMULTI => virtio_net::VIRTIO_NET_CTRL_RX_ALLMULTI;
        rx::ALLUNI => virtio_net::VIRTIO_NET_CTRL_RX_ALLUNI;
        rx::NOMULTI => virtio_net::VIRTIO_NET_CTRL_RX_NOMULTI;
        rx::NOUNI => virtio_net::VIRTIO_NET_CTRL_RX_NOUNI;
        rx::NOBCAST => virtio_net::VIRTIO_NET_CTRL_RX_NOBCAST;
        mac::TABLE_SET => virtio_net::VIRTIO_NET_CTRL_MAC_TABLE_SET;
        mac::ADDR_SET => virtio_net::VIRTIO_NET_CTRL_MAC_ADDR_SET;
        vlan::ADD => virtio_net::VIRTIO_NET_CTRL_VLAN_ADD;
        vlan::DEL => virtio_net::VIRTIO_NET_CTRL_VLAN_DEL;
        announce::ACK => virtio_net::VIRTIO_NET_CTRL_ANNOUNCE_ACK;
        mq::VQ_PAIRS_SET => virtio_net::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
        mq::VQ_PAIRS_MIN => virtio_net::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN;
        mq::VQ_PAIRS_MAX => virtio_net::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX;
        mq::RSS_CONFIG => virtio_net::VIRTIO_NET_CTRL_MQ_RSS_CONFIG;
        mq::HASH_CONFIG => virtio_net::VIRTIO_NET_CTRL_MQ_HASH_CONFIG;
        offloads::SET => virtio_net::VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET;
        coalescing::TX_SET => virtio_net::VIRTIO_NET_CTRL_NOTF_COAL_TX_SET;
        coalescing::RX_SET => virtio_net::VIRTIO_NET_CTRL_NOTF_COAL_RX_SET;
        coalescing::VQ_SET => virtio_net::VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET;
        coalescing::VQ_GET => virtio_net::VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET;
        stats::QUERY => virtio_net::VIRTIO_NET_CTRL_STATS_QUERY;
        stats::GET => virtio_net::VIRTIO_NET_CTRL_STATS_GET;
        stats::bits::CVQ => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_CVQ;
        1_u64 << stats::bits::CVQ => virtio_net::VIRTIO_NET_STATS_TYPE_CVQ;
        stats::bits::RX_BASIC => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_RX_BASIC;
        1_u64 << stats::bits::RX_BASIC => virtio_net::VIRTIO_NET_STATS_TYPE_RX_BASIC;
        stats::bits::RX_CSUM => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_RX_CSUM;
        1_u64 << stats::bits::RX_CSUM => virtio_net::VIRTIO_NET_STATS_TYPE_RX_CSUM;
        stats::bits::RX_GSO => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_RX_GSO;
        1_u64 << stats::bits::RX_GSO => virtio_net::VIRTIO_NET_STATS_TYPE_RX_GSO;
        stats::bits::RX_SPEED => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_RX_SPEED;
        1_u64 << stats::bits::RX_SPEED => virtio_net::VIRTIO_NET_STATS_TYPE_RX_SPEED;
        stats::bits::TX_BASIC => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_TX_BASIC;
        1_u64 << stats::bits::TX_BASIC => virtio_net::VIRTIO_NET_STATS_TYPE_TX_BASIC;
        stats::bits::TX_CSUM => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_TX_CSUM;
        1_u64 << stats::bits::TX_CSUM => virtio_net::VIRTIO_NET_STATS_TYPE_TX_CSUM;
        stats::bits::TX_GSO => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_TX_GSO;
        1_u64 << stats::bits::TX_GSO => virtio_net::VIRTIO_NET_STATS_TYPE_TX_GSO;
        stats::bits::TX_SPEED => virtio_net::VIRTIO_NET_STATS_TYPE_REPLY_TX_SPEED;
        1_u64 << stats::bits::TX_SPEED => virtio_net::VIRTIO_NET_STATS_TYPE_TX_SPEED;
    }
}

#[test]
fn net_header_is_that_of_the_headers() {
    use device::net::header::{GsoType, HashReport, Header, NUM_BUFFERS, SIZE, SIZE_HASH, SIZE_LEGACY};
    use virtio_net::{virtio_net_hdr, virtio_net_hdr_v1, virtio_net_hdr_v1_hash};

    assert_eq!(SIZE_LEGACY, size_of::<virtio_net_hdr>());
    assert_eq!(SIZE, size_of::<virtio_net_hdr_v1>());
    assert_eq!(SIZE_HASH, size_of::<virtio_net_hdr_v1_hash>());
    assert_eq!(NUM_BUFFERS, offset_of!(virtio_net_hdr_v1, num_buffers));
    same_field! {
        Header { flags: !0 } => virtio_net_hdr { flags };
        Header { gso_type: GsoType(!0) } => virtio_net_hdr { gso_type };
        Header { hdr_len: !0 } => virtio_net_hdr { hdr_len };
        Header { gso_size: !0 } => virtio_net_hdr { gso_size };
        Header { csum_start: !0 } => virtio_net_hdr { csum_start };
        Header { csum_offset: !0 } => virtio_net_hdr { csum_offset };
        Header { num_buffers: !0 } => virtio_net_hdr_v1_hash { hdr.num_buffers };
        Header { hash_value: !0 } => virtio_net_hdr_v1_hash { hash_value };
        Header { hash_report: HashReport(!0) } => virtio_net_hdr_v1_hash { hash_report };
        Header { padding_reserved: !0 } => virtio_net_hdr_v1_hash { padding };
    }
}

#[test]
fn net_control_layouts_are_those_of_the_headers() {
    use device::net::control::{Class, Coalescing, Header, QueueCoalescing, StatsQuery, StatsReplyHeader};
    use device::net::steering::{HashConfigHead, RssConfigHead, RssConfigTail};
    use virtio_net::*;

    assert_eq!(Header::SIZE, size_of::<virtio_net_ctrl_hdr>());
    assert_eq!(Coalescing::SIZE, size_of::<virtio_net_ctrl_coal>());
    assert_eq!(QueueCoalescing::SIZE, size_of::<virtio_net_ctrl_coal_vq>());
    assert_eq!(StatsReplyHeader::SIZE, size_of::<virtio_net_stats_reply_hdr>());
    assert_eq!(StatsQuery::SIZE, size_of::<virtio_net_ctrl_queue_stats>());
    assert_eq!(HashConfigHead::SIZE, offset_of!(virtio_net_hash_config, hash_key_data));
    assert_eq!(RssConfigHead::SIZE, offset_of!(virtio_net_rss_config, indirection_table));
    assert_eq!(
        RssConfigTail::SIZE,
        offset_of!(virtio_net_rss_config, hash_key_data) - offset_of!(virtio_net_rss_config, max_tx_vq)
    );
    same_field! {
        Header { class: Class(!0) } => virtio_net_ctrl_hdr { class };
        Header { command: !0 } => virtio_net_ctrl_hdr { cmd };
        Coalescing { max_packets: !0 } => virtio_net_ctrl_coal { max_packets };
        Coalescing { max_usecs: !0 } => virtio_net_ctrl_coal { max_usecs };
        QueueCoalescing { vq_index: !0 } => virtio_net_ctrl_coal_vq { vqn };
        QueueCoalescing { max_packets: !0 } => virtio_net_ctrl_coal_vq { coal.max_packets };
        QueueCoalescing { max_usecs: !0 } => virtio_net_ctrl_coal_vq { coal.max_usecs };
        StatsReplyHeader { reply_type: !0 } => virtio_net_stats_reply_hdr { type_ };
        StatsReplyHeader { vq_index: !0 } => virtio_net_stats_reply_hdr { vq_index };
        StatsReplyHeader { size: !0 } => virtio_net_stats_reply_hdr { size };
        StatsQuery { vq_index: !0 } => virtio_net_ctrl_queue_stats__bindgen_ty_1 { vq_index };
        StatsQuery { reserved: [!0; 6] } => virtio_net_ctrl_queue_stats__bindgen_ty_1 { reserved };
        StatsQuery { types_bitmap: !0 } => virtio_net_ctrl_queue_stats__bindgen_ty_1 { types_bitmap };
        HashConfigHead { hash_types: !0 } => virtio_net_hash_config { hash_types };
        HashConfigHead { reserved: [!0; 8] } => virtio_net_hash_config { reserved };
        HashConfigHead { hash_key_length: !0 } => virtio_net_hash_config { hash_key_length };
        RssConfigHead { hash_types: !0 } => virtio_net_rss_config { hash_types };
        RssConfigHead { indirection_table_mask: !0 } => virtio_net_rss_config { indirection_table_mask };
        RssConfigHead { unclassified_queue: !0 } => virtio_net_rss_config { unclassified_queue };
    }
}
