//! The example that copies images, and the same by hand, over every interface (VIRTIO 1.4 §5.2).
#![cfg(all(feature = "soft", not(loom)))]

#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/block_copy.rs"]
mod block_copy;
#[path = "../driver_common/mod.rs"]
mod driver_common;
mod stepped;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use block_copy::{Place, copy, run, transfer};
use driver_common::{Way, kept_the_rules, rings, ways};
use sha2::{Digest, Sha256};
use virtio::device::Device;
use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;
use virtio::soft::{self, Interface, Run, SoftDevice};
use virtio::spec::ByteOrder;

const SIZE: u64 = if cfg!(asan) { 16 << 20 } else { 256 << 20 };
const MIB: usize = 1 << 20;

/// What a device stores, shared with the test.
type Store = Arc<Mutex<Vec<u8>>>;
/// A SHA-256.
type Hash = [u8; 32];

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("virtio-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// No two words of the image are equal, so that nothing can be missing or in the wrong place.
fn make_image(path: &str, size: u64) -> Hash {
    let mut file = BufWriter::with_capacity(MIB, File::create(path).unwrap());
    let mut hash = Sha256::new();
    let mut piece = Vec::with_capacity(4096);
    for at in (0..size / 8).step_by(512) {
        piece.clear();
        for word in at..(at + 512).min(size / 8) {
            let mixed = (word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            piece.extend_from_slice(&mixed.to_le_bytes());
        }
        hash.update(&piece);
        file.write_all(&piece).unwrap();
    }
    file.flush().unwrap();
    hash.finalize().into()
}

fn hash_of_file(path: &str) -> Hash {
    let (mut file, mut hash, mut buffer) = (File::open(path).unwrap(), Sha256::new(), vec![0; MIB]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hash.finalize().into(),
            len => hash.update(&buffer[..len]),
        }
    }
}

fn hash_of_store(store: &Store) -> Hash {
    Sha256::digest(&*store.lock().unwrap()).into()
}

/// A store in which nothing is left of a copy before.
fn clear(store: &Store) {
    store.lock().unwrap().fill(0x5a);
}

/// Every interface, the transitional one by both of its sides; one of the legacy ones is big-endian.
fn interfaces() -> impl Iterator<Item = Way> {
    let legacy_order = |way: &Way| match way.interface {
        Interface::PciLegacy => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    ways().into_iter().filter(move |way| way.order == legacy_order(way))
}

/// Fails where the driver did not negotiate what the device offered of a ring's features, or more.
#[track_caller]
fn has_all_but(features: Features, withheld: Features) {
    for feature in [Features::EVENT_IDX, Features::INDIRECT_DESC] {
        assert_ne!(features.contains(feature), withheld.contains(feature), "{features:?} {withheld:?}");
    }
}

fn empty(path: &str, size: u64) {
    let _ = fs::remove_file(path);
    File::create(path).unwrap().set_len(size).unwrap();
}

fn disk(device: Device, withheld: Features) -> Place {
    let block = Block::new(device, BlockOptions::default()).unwrap();
    has_all_but(block.features(), withheld);
    Place::Device(Box::new(block))
}

/// Copies an image out of one device into another of the same kind. Their own files and memory are looked at, not
/// what they say.
fn out_of_and_into_devices(run: Run) {
    let folder = Folder::new(&format!("copy-{run:?}"));
    let image = folder.file("image");
    let hash = make_image(&image, SIZE);
    let store: Store = Arc::new(Mutex::new(vec![0; SIZE as usize]));
    for way in interfaces() {
        for withheld in rings() {
            clear(&store);
            let open = |model| way.open(SoftDevice::builder(model).withhold(withheld), run);
            let (from, from_device) = open(soft::Block::file(&image, true).unwrap());
            let (to, to_device) = open(soft::Block::memory(Arc::clone(&store)));
            let source = disk(from_device, withheld);
            assert_eq!(transfer(&source, disk(to_device, withheld), |_, _| {}).unwrap(), SIZE);
            assert_eq!(hash_of_store(&store), hash, "{way:?} without {withheld:?}");
            drop(source);
            kept_the_rules(&from);
            kept_the_rules(&to);
        }
    }
    assert_eq!(hash_of_file(&image), hash, "the source is as it was");
}

#[test]
fn an_image_of_256_mib_goes_out_of_and_into_threaded_devices_as_it_was() {
    out_of_and_into_devices(Run::Thread);
}

#[test]
fn an_image_of_256_mib_goes_out_of_and_into_inline_devices_as_it_was() {
    out_of_and_into_devices(Run::Inline);
}

/// Device to device: what is read through one set-up is written through the same.
#[test]
fn an_image_comes_through_the_address_of_every_interface_as_it_was() {
    let folder = Folder::new("addresses");
    let (image, target) = (folder.file("image"), folder.file("target"));
    let size = 3 * MIB as u64 + 512;
    let hash = make_image(&image, size);
    let ways = [
        "transport=pci-modern",
        "transport=pci-transitional&interface=modern",
        "transport=pci-transitional&interface=legacy",
        "transport=pci-legacy&endian=big",
        "transport=mmio",
        "transport=mmio-legacy",
    ];
    for way in ways {
        for ring in ["event_idx=on&indirect=off", "event_idx=off&indirect=on"] {
            for run in ["thread", "inline"] {
                empty(&target, size);
                let from = format!("soft:block?path={image}&readonly=on&{way}&{ring}&run={run}");
                let to = format!("soft:block?path={target}&{way}&{ring}&run={run}");
                assert_eq!(copy(&from, &to, |_, _| {}).unwrap(), size, "{from}");
                assert_eq!(hash_of_file(&target), hash, "{from}");
            }
        }
    }
}

#[test]
fn files_are_made_and_sized_and_odd_ends_are_filled_up() {
    let folder = Folder::new("files");
    let (image, disk, back) = (folder.file("image"), folder.file("disk"), folder.file("back"));
    make_image(&image, 3 << 20);
    File::options().write(true).open(&image).unwrap().set_len((3 << 20) - 100).unwrap();
    empty(&disk, 3 << 20);
    let device = format!("soft:block?path={disk}&queues=2");
    assert_eq!(copy(&image, &device, |_, _| {}).unwrap(), (3 << 20) - 100);
    fs::write(&back, vec![1; 4 << 20]).unwrap();
    let mut shown = Vec::new();
    assert_eq!(copy(&device, &back, |done, size| shown.push((done, size))).unwrap(), 3 << 20);
    assert_eq!(shown, [(1 << 20, 3 << 20), (2 << 20, 3 << 20), (3 << 20, 3 << 20)]);
    let (image, back) = (fs::read(image).unwrap(), fs::read(back).unwrap());
    assert!(back[..image.len()] == image && back[image.len()..] == [0; 100]);
}

#[test]
fn what_cannot_be_copied_is_an_error_that_says_why() {
    let folder = Folder::new("errors");
    let image = folder.file("image");
    make_image(&image, MIB as u64);
    let small = copy(&image, "soft:block?size=512K", |_, _| {}).unwrap_err().to_string();
    assert!(small.contains("524288") && small.contains("1048576"), "{small}");
    let refused = copy(&image, "soft:block?size=1M&readonly=on", |_, _| {}).unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    assert!(copy(&folder.file("none"), &image, |_, _| {}).is_err());
    assert!(copy("soft:entropy", &folder.file("out"), |_, _| {}).is_err());
    assert!(
        Path::new(&image).metadata().unwrap().len() == MIB as u64,
        "an argument is not made into a target"
    );
}

/// The program's exit code, and what it says.
fn program(args: &[&str], terminal: bool) -> (u8, String) {
    let mut err = Vec::new();
    let code = run(args.iter().map(|arg| (*arg).to_owned()), &mut err, terminal);
    (code, String::from_utf8(err).unwrap())
}

#[test]
fn the_exit_code_says_how_it_went_and_progress_is_shown_where_it_is_wanted() {
    let folder = Folder::new("program");
    let (image, back) = (folder.file("image"), folder.file("back"));
    let hash = make_image(&image, 2 * MIB as u64);
    assert_eq!(program(&[&image, &back], false), (0, String::new()));
    assert_eq!(hash_of_file(&back), hash);
    let shown = "\r 50 %\r100 %\n2097152 bytes copied\n".to_owned();
    assert_eq!(program(&[&image, &back], true), (0, shown.clone()));
    assert_eq!(program(&["--progress", &image, "soft:block?size=2M"], false), (0, shown));
    let (code, said) = program(&[&image, "soft:block?size=1M"], false);
    assert!(code == 1 && said.starts_with("block_copy: ") && said.lines().count() == 1, "{said}");
    let (image, back) = (image.as_str(), back.as_str());
    for wrong in [&[][..], &[image], &[image, back, back], &["--fast", image, back]] {
        let (code, said) = program(wrong, true);
        assert!(code == 2 && said.starts_with("usage: "), "{wrong:?}: {said}");
    }
}

#[test]
fn a_source_is_never_emptied_and_a_wrong_address_is_no_file() {
    let folder = Folder::new("guards");
    let (image, other) = (folder.file("image"), folder.file("other"));
    let hash = make_image(&image, MIB as u64);
    fs::hard_link(&image, &other).unwrap();
    for same in [&image, &other] {
        let refused = copy(&image, same, |_, _| {}).unwrap_err().to_string();
        assert!(refused.contains("is what is to be copied"), "{refused}");
        assert_eq!(hash_of_file(&image), hash);
    }
    for wrong in ["soft:", "soft:block?size", "vdpa:nowhere"] {
        assert!(copy(&image, wrong, |_, _| {}).is_err());
        assert!(!Path::new(wrong).exists(), "{wrong} was made");
    }
    assert!(copy(folder.0.to_str().unwrap(), &other, |_, _| {}).is_err(), "a folder is no image");
}
