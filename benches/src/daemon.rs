//! A vhost-user back-end that offers nothing: enough of one for `virtio-driver` to connect to.
//!
//! That crate's address translator returns a private type, so nobody outside can write one; its vhost-user
//! transport gives one out, once it is connected.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const GET_MAX_MEM_SLOTS: u32 = 36;

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 30;
/// MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS.
const PROTOCOL_FEATURES: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 15;

/// Calls `connect` with the path of a socket behind which the daemon answers, until the connection ends.
///
/// # Errors
/// The socket could not be made, or what `connect` answered.
pub fn with_daemon<T>(connect: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let path = socket_path();
    let listener = UnixListener::bind(&path)?;
    let daemon = thread::spawn(move || listener.accept().and_then(|(stream, _)| serve(stream)));
    let answer = match path.to_str() {
        Some(text) => connect(text),
        None => Err(Error::new(ErrorKind::InvalidInput, "the directory for temporary files is not text")),
    };
    std::fs::remove_file(&path)?;
    if answer.is_ok() {
        daemon.join().map_err(|_| Error::other("the null daemon panicked"))??;
    }
    answer
}

fn socket_path() -> PathBuf {
    std::env::temp_dir().join(format!("virtio-bench-{}.sock", std::process::id()))
}

fn serve(mut stream: UnixStream) -> Result<()> {
    let mut header = [0u8; 12];
    loop {
        match stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (request, flags, size) = (word(0), word(4), word(8));
        let mut payload = vec![0u8; size as usize];
        stream.read_exact(&mut payload)?;
        let answer = match request {
            GET_FEATURES => Some(FEATURES),
            GET_PROTOCOL_FEATURES => Some(PROTOCOL_FEATURES),
            GET_QUEUE_NUM => Some(1),
            GET_MAX_MEM_SLOTS => Some(8),
            // An acknowledgement: 0 is success.
            _ => (flags & NEED_REPLY != 0).then_some(0),
        };
        if let Some(value) = answer {
            let mut reply = Vec::with_capacity(20);
            for part in [request, VERSION | REPLY, 8] {
                reply.extend_from_slice(&part.to_ne_bytes());
            }
            reply.extend_from_slice(&value.to_ne_bytes());
            stream.write_all(&reply)?;
        }
    }
}
