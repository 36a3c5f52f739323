//! Linux errno values that [`Error::errno`](super::Error::errno) gives (asm-generic numbering).

/// No such file or directory.
pub const ENOENT: i32 = 2;
/// Interrupted system call; here: an interrupted wait.
pub const EINTR: i32 = 4;
/// Input/output error.
pub const EIO: i32 = 5;
/// No such device or address.
pub const ENXIO: i32 = 6;
/// Bad file descriptor.
pub const EBADF: i32 = 9;
/// Resource temporarily unavailable.
pub const EAGAIN: i32 = 11;
/// Cannot allocate memory.
pub const ENOMEM: i32 = 12;
/// Bad address.
pub const EFAULT: i32 = 14;
/// Device or resource busy.
pub const EBUSY: i32 = 16;
/// No such device.
pub const ENODEV: i32 = 19;
/// Invalid argument.
pub const EINVAL: i32 = 22;
/// Read-only file system; here: a read-only device.
pub const EROFS: i32 = 30;
/// Numerical argument out of domain; here: a value outside what a device offers.
pub const ERANGE: i32 = 34;
/// Owner died; here: the other end went away with the request in its hands.
pub const EOWNERDEAD: i32 = 130;
/// Protocol error.
pub const EPROTO: i32 = 71;
/// Not supported.
pub const EOPNOTSUPP: i32 = 95;
/// Connection reset by peer.
pub const ECONNRESET: i32 = 104;
/// Connection timed out.
pub const ETIMEDOUT: i32 = 110;
/// Stale handle.
pub const ESTALE: i32 = 116;
