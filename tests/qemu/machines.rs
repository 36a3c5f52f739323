//! One machine, many handles: finding, sharing, and who may have what.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use virtio::Error;
use virtio::bus::qtest::{Machine, MachineOptions};
use virtio::drivers::{Block, BlockOptions, Entropy};
use virtio::event::Deadline;
use virtio::find::find_in;
use virtio::spec::DeviceType;
use virtio::testing::{Kind, Qemu};
use virtio::transport::TransportKind;

use crate::common::{SOON, WAYS, Way};

#[test]
fn find_tells_all_devices_of_a_machine_with_addresses_that_open() {
    for way in WAYS {
        let qemu = way
            .builder()
            .disk("d", 1 << 20)
            .args(["-object", "rng-builtin,id=r"])
            .device(way.device("blk", 0, "drive=d"))
            .device(way.device("rng", 1, "rng=r"))
            .device(way.device("serial", 2, ""))
            .start()
            .unwrap();
        let mut found: Vec<_> =
            find_in(&qemu.address().to_string()).unwrap().map(|info| info.unwrap()).collect();
        found.sort_by_key(|info| info.device_type);
        let types: Vec<DeviceType> = found.iter().map(|info| info.device_type).collect();
        assert_eq!(types, [DeviceType::BLOCK, DeviceType::CONSOLE, DeviceType::ENTROPY], "{way:?}");
        assert!(found.iter().all(|info| info.transport == if way.is_pci() { "pci" } else { "mmio" }));
        // Two devices open at once, while a third search goes on.
        let mut search = find_in(&qemu.address().to_string()).unwrap();
        assert!(search.next().unwrap().is_ok());
        let disk = Block::open(&found[0].address.to_string(), BlockOptions::default()).unwrap();
        let modern = way.is_pci() && way != Way::Legacy;
        assert_eq!(disk.device().transport().kind() == TransportKind::PciModern, modern, "unless it is said");
        let mut entropy = Entropy::open(&found[2].address.to_string(), SOON).unwrap();
        let mut bytes = [0; 512];
        entropy.fill(&mut bytes).unwrap();
        disk.write(0, &bytes).unwrap();
        assert_eq!(search.count(), 2);
        let mut back = [0; 512];
        disk.read(0, &mut back).unwrap();
        assert_eq!(back, bytes);
    }
}

#[test]
fn a_machine_tells_where_the_devices_of_its_command_line_are() {
    for way in WAYS {
        let qemu = way
            .builder()
            .args(["-object", "rng-builtin,id=r", "-chardev", "null,id=c"])
            .device(way.device("serial", 3, ""))
            .device("virtconsole,chardev=c")
            .device(way.device("rng", 1, "rng=r"))
            .start()
            .unwrap();
        let addresses = qemu.addresses().unwrap();
        let types: Vec<_> =
            addresses.iter().map(|address| virtio::open(address).unwrap().device_type()).collect();
        assert_eq!(types, [DeviceType::CONSOLE, DeviceType::ENTROPY], "{way:?}");
    }
    // Without a place QEMU finds one; what was unplugged has none.
    for (kind, device) in
        [(Kind::Q35, "virtio-balloon-pci"), (Kind::G3beige, "virtio-balloon-pci-non-transitional")]
    {
        let qemu = Qemu::builder(kind).device(device).start().unwrap();
        let [address] = &qemu.addresses().unwrap()[..] else { panic!("one device, one address") };
        assert_eq!(virtio::open(address).unwrap().device_type(), DeviceType::BALLOON, "{}", kind.name());
    }
    let qemu = Qemu::builder(Kind::Pc).device("virtio-balloon-pci,addr=4,id=b").start().unwrap();
    let [address] = &qemu.addresses().unwrap()[..] else { panic!("one device, one address") };
    assert_eq!(*address, qemu.pci(4));
    qemu.qmp().execute("device_del", "{\"id\":\"b\"}").unwrap();
    crate::faults::eject(&Machine::connect(&options(&qemu, SOON)).unwrap(), 4);
    qemu.qmp().event("DEVICE_DELETED", SOON).unwrap();
    assert!(matches!(qemu.addresses(), Err(Error::NotFound { .. })));
}

/// Behind bridges of bus 0: by MSI-X, by the line, by memory and by I/O space; the same place each time.
#[test]
fn devices_behind_bridges_are_found_and_driven() {
    let ports = ["-device", "pcie-root-port,id=a,addr=5", "-device", "pcie-root-port,id=b,addr=6,chassis=1"];
    let bridges =
        ["-device", "pci-bridge,id=a,addr=5,chassis_nr=1", "-device", "pci-bridge,id=b,addr=6,chassis_nr=2"];
    for (kind, bridges, sides, place) in [
        (Kind::Q35, ports, "addr=0", "00"),
        (Kind::Q35, ports, "addr=0,vectors=0", "00"),
        (Kind::Pc, bridges, "addr=3,disable-legacy=on", "03"),
        (Kind::Pc, bridges, "addr=3,disable-modern=on,disable-legacy=off", "03"),
        (Kind::Pc, bridges, "addr=3,disable-modern=on,disable-legacy=off,vectors=0", "03"),
    ] {
        let qemu = Qemu::builder(kind)
            .disk("d", 1 << 20)
            .args(["-object", "rng-builtin,id=r"])
            .args(bridges)
            .device(format!("virtio-blk-pci,drive=d,bus=b,{sides}"))
            .device("virtio-rng-pci,rng=r,addr=9")
            .device(format!("virtio-rng-pci,rng=r,bus=a,{sides}"))
            .start()
            .unwrap();
        let addresses = qemu.addresses().unwrap();
        for _ in 0..2 {
            let found: Vec<_> =
                find_in(&qemu.address().to_string()).unwrap().map(|info| info.unwrap()).collect();
            let places: Vec<_> = found.iter().map(|info| info.address.get("pci").unwrap()).collect();
            assert_eq!(places, ["09.0", &format!("01:{place}.0"), &format!("02:{place}.0")], "{sides}");
            let found: Vec<_> = found.iter().map(|info| info.address.to_string()).collect();
            assert_eq!(addresses, [2, 0, 1].map(|n: usize| found[n].clone()), "{sides}");
            let mut options = BlockOptions::default();
            options.timeout = SOON;
            let disk = Block::open(&addresses[0], options).unwrap();
            for address in &addresses[1..] {
                let mut entropy = Entropy::open(address, SOON).unwrap();
                let (mut bytes, mut back) = ([0; 4096], [0; 4096]);
                entropy.fill(&mut bytes).unwrap();
                disk.write(8192, &bytes).unwrap();
                disk.read(8192, &mut back).unwrap();
                assert_eq!(back, bytes, "{sides}");
            }
        }
    }
}

#[test]
fn functions_above_0_are_found_too() {
    let qemu = Qemu::builder(Kind::Pc)
        .args(["-object", "rng-builtin,id=r"])
        .device("virtio-rng-pci,rng=r,addr=5.0,multifunction=on")
        .device("virtio-rng-pci,rng=r,addr=5.3")
        .start()
        .unwrap();
    let found: Vec<_> = find_in(&qemu.address().to_string()).unwrap().map(|info| info.unwrap()).collect();
    assert_eq!(found.iter().map(|f| f.address.get("pci").unwrap()).collect::<Vec<_>>(), ["05.0", "05.3"]);
    let mut entropy = Entropy::open(&found[1].address.to_string(), SOON).unwrap();
    entropy.fill(&mut [0; 100]).unwrap();
}

fn options(qemu: &Qemu, timeout: Duration) -> MachineOptions {
    let mut options = MachineOptions::new(qemu.dir().join("qtest"), qemu.dir().join("ram"));
    options.timeout = timeout;
    options
}

#[test]
fn a_socket_that_somebody_else_holds_is_busy_at_the_deadline() {
    let qemu = Qemu::builder(Kind::Pc)
        .args(["-object", "rng-builtin,id=r"])
        .device("virtio-rng-pci,rng=r,addr=4")
        .start()
        .unwrap();
    let holder = UnixStream::connect(qemu.dir().join("qtest")).unwrap();
    let error = virtio::open(&(qemu.pci(4) + "&timeout=200")).unwrap_err();
    assert!(matches!(error.kind(), Error::DeviceBusy { .. }), "{error}");
    let error = find_in(&(qemu.address().to_string() + "&timeout=200")).err().unwrap();
    assert!(matches!(error.kind(), Error::DeviceBusy { .. }), "{error}");
    drop(holder);
    let mut entropy = Entropy::open(&qemu.pci(4), SOON).unwrap();
    entropy.fill(&mut [0; 100]).unwrap();
}

#[test]
fn v13_a_stopped_machine_is_busy_for_newcomers_and_late_for_others() {
    let qemu = Qemu::builder(Kind::Pc).start().unwrap();
    let machine = Machine::connect(&options(&qemu, Duration::from_millis(200))).unwrap();
    qemu.stop().unwrap();
    for _ in 0..3 {
        assert!(matches!(machine.command("readl 0x100000"), Err(Error::Timeout { .. })));
    }
    qemu.resume().unwrap();
    // The late answers are other commands'.
    for value in 0..100u32 {
        let at = 0x10_0000 + 8 * value;
        machine.command(&format!("writel {at:#x} {value:#x}")).unwrap();
        assert_eq!(machine.command(&format!("readl {at:#x}")).unwrap(), format!("0x{value:016x}"));
    }
    drop(machine);
    qemu.stop().unwrap();
    let error = Machine::connect(&options(&qemu, Duration::from_millis(200))).unwrap_err();
    assert!(matches!(error, Error::DeviceBusy { .. }), "{error}");
    qemu.resume().unwrap();
    Machine::connect(&options(&qemu, SOON)).unwrap();
}

#[test]
fn handles_share_one_connection_and_the_last_one_ends_it() {
    let qemu = Qemu::builder(Kind::Pc).start().unwrap();
    let options = options(&qemu, SOON);
    let (one, two) = (Machine::connect(&options).unwrap(), Machine::connect(&options).unwrap());
    assert!(std::sync::Arc::ptr_eq(&one, &two));
    let mut other = options.clone();
    other.ram = qemu.dir().join("rom");
    assert!(matches!(Machine::connect(&other), Err(Error::Misuse { .. })));
    other.ram = options.ram.clone();
    other.kind = Some("g3beige".to_owned());
    assert!(matches!(Machine::connect(&other), Err(Error::Misuse { .. })));
    drop((one, two));
    let mut raw = UnixStream::connect(qemu.dir().join("qtest")).unwrap();
    raw.write_all(b"endianness\n").unwrap();
    let mut answer = [0; 10];
    raw.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK little\n");
}

#[test]
fn addresses_that_say_too_little_or_nonsense_are_refused() {
    let qemu = Qemu::builder(Kind::Pc).start().unwrap();
    let base = qemu.address().to_string();
    let socket = base.split('?').next().unwrap();
    for bad in [
        socket.to_owned(),
        base.clone(),
        format!("{socket}?pci=04.0"),
        base.clone() + "&pci=04.0&mmio=0xfeb00000",
        base.clone() + "&pci=4",
        base.clone() + "&pci=20.0",
        base.clone() + "&pci=04.8",
        base.clone() + "&pci=100:04.0",
        base.clone() + "&pci=0000:00:04.0",
        base.clone() + "&pci=04.0&interface=old",
        base.clone() + "&mmio=0xfeb00000&interface=legacy",
        base.clone() + "&pci=04.0&speed=1",
    ] {
        let error = virtio::open(&bad).unwrap_err();
        assert!(matches!(error.kind(), Error::BadAddress { .. }), "{bad}: {error}");
    }
    for (missing, kind) in
        [("&pci=09.0", "NotFound"), ("&pci=07:00.0", "NotFound"), ("&mmio=0xfeb00000", "BadMagic")]
    {
        let error = virtio::open(&(base.clone() + missing)).unwrap_err();
        assert!(format!("{:?}", error.kind()).starts_with(kind), "{error}");
    }
    let error = virtio::open("qtest:/nowhere/qtest?ram=/dev/null&pci=04.0").unwrap_err();
    assert!(matches!(error.kind(), Error::NotFound { .. }), "{error}");
    let error = virtio::open(&format!("{socket}?ram=/nowhere&pci=04.0")).unwrap_err();
    assert!(matches!(error.kind(), Error::Os { .. }), "{error}");
    assert!(matches!(find_in("soft:block").err().unwrap().kind(), Error::BadAddress { .. }));
}

#[test]
fn a_rig_that_cannot_start_says_why() {
    let error = Qemu::builder(Kind::Pc).program("/nowhere/qemu-system-x86_64").start().unwrap_err();
    assert!(error.to_string().contains("install the Debian package qemu-system-x86"), "{error}");
    let error = Qemu::builder(Kind::Pc).device("no-such-device").start().unwrap_err();
    assert!(error.to_string().contains("'no-such-device' is not a valid device model name"), "{error}");
}

#[test]
fn a_machine_leaves_neither_process_nor_files() {
    let qemu = Qemu::builder(Kind::Pc).start().unwrap();
    let (pid, dir) = (qemu.pid(), qemu.dir().to_owned());
    assert!(dir.join("ram").exists() && std::path::Path::new(&format!("/proc/{pid}")).exists());
    drop(qemu);
    assert!(!dir.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn v16_a_qemu_that_exits_is_known_to_be_dead_and_shows_its_words() {
    let qemu = Qemu::builder(Kind::Pc).start().unwrap();
    let machine = Machine::connect(&options(&qemu, SOON)).unwrap();
    assert!(!machine.dead(Deadline::after(Duration::ZERO)));
    qemu.check().unwrap();
    // It exits by itself: the answer to `quit` comes before.
    qemu.qmp().execute("quit", "{}").unwrap();
    let start = std::time::Instant::now();
    while machine.command("readb 0x100000").is_ok() {
        assert!(start.elapsed() < SOON);
    }
    assert_eq!(machine.command("readb 0x100000"), Err(Error::Disconnected { partial: 0 }));
    assert!(machine.transcript().contains("> readb 0x100000"), "{}", machine.transcript());
    assert!(machine.dead(Deadline::after(SOON)));
    let error = virtio::open(&qemu.pci(4)).unwrap_err();
    assert!(matches!(error.kind(), Error::NotFound { .. }), "{error}");
    let error = qemu.check().unwrap_err();
    assert!(error.to_string().contains("exit status: 0"), "{error}");
    assert!(matches!(qemu.stop(), Err(Error::Protocol { .. })));
}

/// Has commands done over a connection of their own, as another process would.
fn elsewhere(qemu: &Qemu, commands: &[&str]) {
    let mut socket = UnixStream::connect(qemu.dir().join("qtest")).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    for command in commands {
        writeln!(socket, "{command}").unwrap();
        assert!(lines.next().unwrap().unwrap().starts_with("OK"), "{command}");
    }
}

#[test]
fn what_others_left_running_is_stopped_before_a_device_is_used() {
    let two = |way: Way| {
        let builder = way.builder().args(["-object", "rng-builtin,id=r"]);
        let builder = builder.device(way.device("rng", 0, "rng=r")).device(way.device("rng", 1, "rng=r"));
        builder.start().unwrap()
    };
    let qemu = two(Way::Modern);
    elsewhere(&qemu, &["outl 0xcf8 0x80002004", "outw 0xcfc 0x7"]);
    let _entropy = Entropy::open(&Way::Modern.address(&qemu, 1), SOON).unwrap();
    let machine = Machine::connect(&options(&qemu, SOON)).unwrap();
    machine.command("outl 0xcf8 0x80002004").unwrap();
    assert_eq!(machine.command("inw 0xcfc").unwrap(), "0x0003", "no bus master any more");

    let qemu = two(Way::Mmio);
    elsewhere(&qemu, &["writel 0xfeb02e70 0x1", "writel 0xfeb02e70 0x3"]);
    let _entropy = Entropy::open(&Way::Mmio.address(&qemu, 1), SOON).unwrap();
    let machine = Machine::connect(&options(&qemu, SOON)).unwrap();
    assert_eq!(machine.command("readl 0xfeb02e70").unwrap(), "0x0000000000000000", "reset");
}
