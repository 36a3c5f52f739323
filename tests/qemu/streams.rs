//! Devices without a driver here yet, by raw queues: network, console, input, 9P. And entropy, which has one.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use virtio::device::{Device, Queue, QueueConfig};
use virtio::drivers::Entropy;
use virtio::event::Deadline;
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::queue::Token;
use virtio::spec::device::{console, net};

use crate::common::{Random, SOON, WAYS, Way};

/// A device with all of its queues, and buffers for them.
struct Raw {
    device: Device,
    queues: Vec<Queue<DmaBuf>>,
    pool: DmaPool,
}

impl Raw {
    fn new(address: &str, queues: u16, wanted: impl IntoIterator<Item = u8>) -> Self {
        let device = virtio::open(address).unwrap();
        let wanted: Features = wanted.into_iter().map(Features::from_bit).collect();
        device.negotiate(wanted | Features::EVENT_IDX, Features::EMPTY).unwrap();
        let take = |index| device.take_queue(index, QueueConfig::size(64)).unwrap();
        let queues = (0..queues).map(take).collect();
        let pool = device.pool(256, 2048).unwrap();
        device.start().unwrap();
        Self { device, queues, pool }
    }

    fn filled(&self, bytes: &[u8]) -> DmaBuf {
        let mut buf = self.pool.take().unwrap();
        buf.write(0, bytes).unwrap();
        buf.set_len(bytes.len() as u32).unwrap();
        buf
    }

    /// Gives the device bytes to read, and waits until it did.
    fn send(&mut self, queue: usize, bytes: &[u8]) {
        let buf = self.filled(bytes);
        let queue = &mut self.queues[queue];
        let token = queue.add([buf], []).unwrap();
        queue.notify().unwrap();
        assert_eq!(queue.get(Some(SOON)).unwrap().token, token);
    }

    /// Gives the device `count` buffers of `len` bytes to write to.
    fn offer(&mut self, queue: usize, count: usize, len: u32) {
        for _ in 0..count {
            let mut buf = self.pool.take().unwrap();
            buf.set_len(len).unwrap();
            self.queues[queue].add([], [buf]).unwrap();
        }
        self.queues[queue].notify().unwrap();
    }

    /// What the device wrote to the next of them.
    fn receive(&mut self, queue: usize) -> Vec<u8> {
        bytes(self.queues[queue].get(Some(SOON)).unwrap()).1
    }

    /// One request with an answer.
    fn ask(&mut self, queue: usize, request: &[u8]) -> Vec<u8> {
        let (request, answer) = (self.filled(request), self.pool.take().unwrap());
        let queue = &mut self.queues[queue];
        let token = queue.add([request], [answer]).unwrap();
        queue.notify().unwrap();
        let (found, answer) = bytes(queue.get(Some(SOON)).unwrap());
        assert_eq!(found, token);
        answer
    }
}

/// The written bytes of the last buffer.
fn bytes(used: virtio::device::Used<DmaBuf>) -> (Token, Vec<u8>) {
    let (token, written) = (used.token, used.written as usize);
    let buf = used.into_buffers().last().unwrap();
    let mut bytes = vec![0; written];
    buf.read(0, &mut bytes).unwrap();
    (token, bytes)
}

#[test]
fn s5_4_entropy_gives_a_mebibyte_and_never_the_same_twice() {
    for way in WAYS {
        let qemu = crate::entropy(way, "");
        let mut entropy = Entropy::open(&way.address(&qemu, 0), SOON).unwrap();
        let mut bytes = vec![0; 1 << 20];
        entropy.fill(&mut bytes).unwrap();
        let mut words: Vec<&[u8]> = bytes.chunks(16).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{way:?}: 16 bytes came twice");
        let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        assert!((4_150_000..4_240_000).contains(&ones), "{way:?}: {ones} bits of 8,388,608 are set");
    }
}

/// Frames go out and come in whole, with the header that the features ask for; the link's state is a configuration
/// change.
#[test]
fn s5_1_6_frames_go_both_ways() {
    for way in WAYS {
        let netdev =
            "dgram,id=n,local.type=unix,local.path=@DIR/theirs,remote.type=unix,remote.path=@DIR/ours";
        let qemu = way
            .builder()
            .args(["-netdev", netdev])
            .device(way.device("net", 0, "netdev=n,mac=52:54:00:12:34:56"))
            .start()
            .unwrap();
        let ours = UnixDatagram::bind(qemu.dir().join("ours")).unwrap();
        ours.set_read_timeout(Some(SOON)).unwrap();
        ours.connect(qemu.dir().join("theirs")).unwrap();
        let mut nic = Raw::new(&way.address(&qemu, 0), 2, [net::feature::MAC, net::feature::STATUS]);
        let features = nic.device.features();
        let header = if features.contains(Features::VERSION_1) { 12 } else { 10 };
        let config = nic.device.config().snapshot(features).unwrap();
        assert_eq!(config[0].values, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(config[1].values, [1], "the link is up");
        nic.offer(0, 32, 1600);
        let mut random = Random(3);
        for round in 0..50u64 {
            let len = 60 + random.below(1455) as usize;
            let mut frame = random.bytes(len);
            frame[..14].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x34\x56\x88\xb5");
            nic.send(1, &[&vec![0; header], &frame[..]].concat());
            let mut got = [0; 2000];
            let size = ours.recv(&mut got).unwrap();
            assert!(got[..size] == frame, "{way:?}: frame {round} of {len} bytes went out as {size}");

            frame[..12].copy_from_slice(b"\x52\x54\x00\x12\x34\x56\xaa\xbb\xcc\xdd\xee\xff");
            ours.send(&frame).unwrap();
            let got = nic.receive(0);
            assert!(got[header..] == frame, "{way:?}: frame {round} of {len} bytes came in as {}", got.len());
            nic.offer(0, 1, 1600);
        }
        let status = nic.device.config().field("status").unwrap();
        for (up, value) in [("false", 0), ("true", 1)] {
            let watch = nic.device.watch().unwrap();
            qemu.qmp().execute("set_link", &format!("{{\"name\":\"n\",\"up\":{up}}}")).unwrap();
            assert!(watch.wait(Deadline::after(SOON)).unwrap().config_changed, "{way:?}");
            assert_eq!(nic.device.config().read_field(status).unwrap(), [value], "{way:?}");
        }
        nic.device.close().unwrap();
    }
}

/// A control message of a console, all little-endian here (VIRTIO 1.4 §5.3.6.2).
fn control(port: u32, event: u16, value: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

#[test]
fn s5_3_6_console_bytes_and_control_messages_go_both_ways() {
    for way in WAYS {
        let qemu = way
            .builder()
            .args(["-chardev", "socket,id=c,path=@DIR/port,server=on,wait=off"])
            .device(way.device("serial", 0, "id=vs,max_ports=2"))
            .device("virtserialport,bus=vs.0,chardev=c,nr=1,name=org.test")
            .start()
            .unwrap();
        let mut device = Raw::new(&way.address(&qemu, 0), 6, [console::feature::MULTIPORT]);
        let ports = device.device.config().field("max_nr_ports").unwrap();
        assert_eq!(device.device.config().read_field(ports).unwrap(), [2]);
        device.offer(2, 16, 256);
        device.send(3, &control(u32::MAX, DEVICE_READY, 1));
        assert_eq!(device.receive(2), control(1, PORT_ADD, 1), "{way:?}");
        device.send(3, &control(1, PORT_READY, 1));
        // Its name and, where somebody holds the other end, that it is open: in QEMU's order.
        let name = device.receive(2);
        assert_eq!(&name[..8], control(1, PORT_NAME, 1), "{way:?}");
        assert_eq!(&name[8..], b"org.test\0");
        let mut other = UnixStream::connect(qemu.dir().join("port")).unwrap();
        other.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(device.receive(2), control(1, PORT_OPEN, 1), "{way:?}");
        device.send(3, &control(1, PORT_OPEN, 1));
        device.offer(4, 8, 1024);
        let mut random = Random(8);
        for round in 0..20 {
            let len = 1 + random.below(1500) as usize;
            let out = random.bytes(len);
            let mut got = vec![0; out.len()];
            device.send(5, &out);
            other.read_exact(&mut got).unwrap();
            assert!(got == out, "{way:?}: round {round}");
            let len = 1 + random.below(3000) as usize;
            let sent = random.bytes(len);
            other.write_all(&sent).unwrap();
            let mut got = Vec::new();
            while got.len() < sent.len() {
                got.extend(device.receive(4));
                device.offer(4, 1, 1024);
            }
            assert!(got == sent, "{way:?}: round {round}");
        }
        drop(other);
        assert_eq!(device.receive(2), control(1, PORT_OPEN, 0), "{way:?}");
        device.device.close().unwrap();
    }
}

#[test]
fn s5_3_a_console_without_ports_is_two_queues() {
    for way in WAYS {
        let qemu = way
            .builder()
            .args(["-chardev", "socket,id=c,path=@DIR/port,server=on,wait=off"])
            .device(way.device("serial", 0, "id=vs,max_ports=1"))
            .device("virtconsole,bus=vs.0,chardev=c,nr=0")
            .start()
            .unwrap();
        let mut device = Raw::new(&way.address(&qemu, 0), 2, []);
        let mut other = UnixStream::connect(qemu.dir().join("port")).unwrap();
        other.set_read_timeout(Some(SOON)).unwrap();
        device.offer(0, 4, 64);
        // QEMU has the connection when what is written to it arrives.
        other.write_all(b"in").unwrap();
        assert_eq!(device.receive(0), b"in", "{way:?}");
        device.send(1, b"out");
        let mut got = [0; 3];
        other.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"out", "{way:?}");
    }
}

/// Keys arrive in the order in which they were sent, each group of events closed by a SYN.
#[test]
fn s5_8_6_input_events_arrive_in_order() {
    const KEYS: [(&str, u16); 6] =
        [("a", 30), ("b", 48), ("spc", 57), ("ret", 28), ("shift", 42), ("f1", 59)];
    for way in [Way::Modern, Way::Mmio, Way::MmioLegacy] {
        let driver = way.device("keyboard", 0, "");
        let qemu = way.builder().device(driver).start().unwrap();
        let mut keyboard = Raw::new(&way.address(&qemu, 0), 2, []);
        keyboard.offer(0, 48, 8);
        let event = |bytes: &[u8]| {
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            (half(0), half(2), u32::from_le_bytes(bytes[4..8].try_into().unwrap()))
        };
        let start = Instant::now();
        for (name, code) in KEYS.into_iter().cycle().take(60) {
            let key = |down: bool| {
                format!(
                    "{{\"type\":\"key\",\"data\":{{\"down\":{down},\
                     \"key\":{{\"type\":\"qcode\",\"data\":\"{name}\"}}}}}}"
                )
            };
            let arguments = format!("{{\"events\":[{},{}]}}", key(true), key(false));
            qemu.qmp().execute("input-send-event", &arguments).unwrap();
            for wanted in [(1, code, 1), (1, code, 0), (0, 0, 0)] {
                assert_eq!(event(&keyboard.receive(0)), wanted, "{way:?}: {name}");
                keyboard.offer(0, 1, 8);
            }
        }
        assert!(start.elapsed() < SOON);
    }
}

/// A message of 9P: length, type, tag, body.
fn message(kind: u8, tag: u16, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let len = 7 + body.len() as u32;
    [&len.to_le_bytes()[..], &[kind], &tag.to_le_bytes(), &body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn ninep_agrees_on_a_version_and_attaches() {
    const TVERSION: u8 = 100;
    const TATTACH: u8 = 104;
    const NOBODY: u32 = u32::MAX;
    for way in WAYS {
        let qemu = way
            .builder()
            .args(["-fsdev", "local,id=f,path=@DIR,security_model=none"])
            .device(way.device("9p", 0, "fsdev=f,mount_tag=the-tag"))
            .start()
            .unwrap();
        const MOUNT_TAG: u8 = 0;
        let mut device = Raw::new(&way.address(&qemu, 0), 1, [MOUNT_TAG]);
        let config = device.device.config();
        let len = config.read(0, 2).unwrap();
        let tag: Vec<u8> = (0..len).map(|n| config.read(2 + n, 1).unwrap() as u8).collect();
        assert_eq!(tag, b"the-tag", "{way:?}");
        let version = message(TVERSION, u16::MAX, &[&4096u32.to_le_bytes(), &text("9P2000.L")]);
        let answer = device.ask(0, &version);
        let wanted = message(TVERSION + 1, u16::MAX, &[&4096u32.to_le_bytes(), &text("9P2000.L")]);
        assert_eq!(answer, wanted, "{way:?}");
        let attach = [
            &0u32.to_le_bytes()[..],
            &NOBODY.to_le_bytes(),
            &text("nobody"),
            &text("/"),
            &NOBODY.to_le_bytes(),
        ];
        let answer = device.ask(0, &message(TATTACH, 7, &attach));
        assert_eq!((answer.len(), answer[4], &answer[5..7]), (20, TATTACH + 1, &[7, 0][..]), "{way:?}");
        const DIRECTORY: u8 = 0x80;
        assert_eq!(answer[7], DIRECTORY);
        device.device.close().unwrap();
    }
}
