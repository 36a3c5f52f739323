//! Crypto device (VIRTIO 1.4 §5.9).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the crypto device (VIRTIO 1.4 §5.9.3, §5.9.5).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::CRYPTO, features: FEATURES, config: CONFIG };

feature_bits! { "5.9.3"
    /// Request format of revision 1.
    REVISION_1 = 0;
    /// Cipher requests without a session.
    CIPHER_STATELESS_MODE = 1 requires [REVISION_1];
    /// Hash requests without a session.
    HASH_STATELESS_MODE = 2 requires [REVISION_1];
    /// MAC requests without a session.
    MAC_STATELESS_MODE = 3 requires [REVISION_1];
    /// AEAD requests without a session.
    AEAD_STATELESS_MODE = 4 requires [REVISION_1];
    /// Asymmetric cipher requests without a session.
    AKCIPHER_STATELESS_MODE = 5 requires [REVISION_1];
}

config_space! { "5.9.5"
    /// Bit 0: ready for requests.
    STATUS "status" @ 0: u32;
    /// Largest number of data queues.
    MAX_DATAQUEUES "max_dataqueues" @ 4: u32;
    /// Mask of the services.
    CRYPTO_SERVICES "crypto_services" @ 8: u32;
    /// Mask of the ciphers 0 to 31.
    CIPHER_ALGO_L "cipher_algo_l" @ 12: u32;
    /// Mask of the ciphers 32 to 63.
    CIPHER_ALGO_H "cipher_algo_h" @ 16: u32;
    /// Mask of the hashes.
    HASH_ALGO "hash_algo" @ 20: u32;
    /// Mask of the MACs 0 to 31.
    MAC_ALGO_L "mac_algo_l" @ 24: u32;
    /// Mask of the MACs 32 to 63.
    MAC_ALGO_H "mac_algo_h" @ 28: u32;
    /// Mask of the AEAD algorithms.
    AEAD_ALGO "aead_algo" @ 32: u32;
    /// Longest cipher key in bytes.
    MAX_CIPHER_KEY_LEN "max_cipher_key_len" @ 36: u32;
    /// Longest authentication key in bytes.
    MAX_AUTH_KEY_LEN "max_auth_key_len" @ 40: u32;
    /// Mask of the asymmetric ciphers.
    AKCIPHER_ALGO "akcipher_algo" @ 44: u32;
    /// Largest content of a request in bytes.
    MAX_SIZE "max_size" @ 48: u64;
}

/// Bit of `status`: ready for requests (VIRTIO 1.4 §5.9.5).
pub const S_HW_READY: u32 = 1;
