//! Packet hashes of the network device (VIRTIO 1.4 §5.1.9.4.3, §5.1.9.4.4).

/// Bits of `supported_hash_types` and of the hash configuration (VIRTIO 1.4 §5.1.9.4.3).
pub mod hash_type {
    /// IPv4 addresses.
    pub const IPV4: u32 = 1 << 0;
    /// IPv4 addresses and TCP ports.
    pub const TCPV4: u32 = 1 << 1;
    /// IPv4 addresses and UDP ports.
    pub const UDPV4: u32 = 1 << 2;
    /// IPv6 addresses.
    pub const IPV6: u32 = 1 << 3;
    /// IPv6 addresses and TCP ports.
    pub const TCPV6: u32 = 1 << 4;
    /// IPv6 addresses and UDP ports.
    pub const UDPV6: u32 = 1 << 5;
    /// IPv6 addresses of the extension headers.
    pub const IP_EX: u32 = 1 << 6;
    /// The same and TCP ports.
    pub const TCP_EX: u32 = 1 << 7;
    /// The same and UDP ports.
    pub const UDP_EX: u32 = 1 << 8;
}

/// Bits of `supported_tunnel_types` and of the tunnel hash configuration (VIRTIO 1.4 §5.1.9.4.4).
pub mod tunnel_type {
    /// GRE of RFC 2784.
    pub const GRE_2784: u32 = 1 << 0;
    /// GRE of RFC 2890.
    pub const GRE_2890: u32 = 1 << 1;
    /// GRE of RFC 7676.
    pub const GRE_7676: u32 = 1 << 2;
    /// GRE in UDP.
    pub const GRE_UDP: u32 = 1 << 3;
    /// VXLAN.
    pub const VXLAN: u32 = 1 << 4;
    /// VXLAN-GPE.
    pub const VXLAN_GPE: u32 = 1 << 5;
    /// GENEVE.
    pub const GENEVE: u32 = 1 << 6;
    /// IP in IP.
    pub const IPIP: u32 = 1 << 7;
    /// NVGRE.
    pub const NVGRE: u32 = 1 << 8;
}
